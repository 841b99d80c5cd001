// Draws the charts in the colours of the page, and again when the colour scheme changes.
"use strict";
const source = document.getElementById("specs").textContent;
const scheme = window.matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function config() {
  const [ink, muted, line] = [colour("ink"), colour("muted"), colour("line")];
  return {
    background: "transparent",
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: muted, titleColor: muted, gridColor: line, domainColor: line, tickColor: line,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, titlePadding: 8,
      labelFlush: false, labelOverlap: true,
    },
    axisY: { domain: false, ticks: false, labelPadding: 6 },
    legend: {
      labelColor: ink, titleColor: muted, labelFontSize: 12.5, titleFontSize: 12,
      titleFontWeight: 500, offset: 6, columnPadding: 14, labelLimit: 220,
    },
    text: { fontSize: 12 },
  };
}

async function draw() {
  const specs = JSON.parse(source.replace(/"@(\w+)"/g, (_, name) => JSON.stringify(colour(name))));
  const options = { actions: false, renderer: "svg", config: config(), tooltip: { theme: "custom" } };
  const drawn = specs.map((spec, number) => vegaEmbed("#chart" + number, spec, options));
  await Promise.all(drawn);
  document.documentElement.dataset.charts = String(drawn.length);
}

scheme.addEventListener("change", draw);
draw().catch((error) => {
  document.documentElement.dataset.error = String(error);
  throw error;
});
