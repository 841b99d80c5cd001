"""Plans as kernel launches. Plain Python, needs neither CuPy nor a GPU."""
