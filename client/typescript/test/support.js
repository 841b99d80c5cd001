// Arguments of PoolingClient for the requests of the test vectors (docs/vectors.md).
import fs from 'node:fs'
import { after } from 'node:test'

import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web'
import { PoolingClient, tensor } from '../dist/index.js'

const ARRAYS = {
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  int64: BigInt64Array
}
const FOLDER = new URL('../../../tests/vectors/', import.meta.url)
const grpc = { baseUrl: `http://${process.env.POOLING_TARGET || '127.0.0.1:50051'}` }
const http = { baseUrl: `http://${process.env.POOLING_HTTP || '127.0.0.1:8080'}` }
export const LIMIT = { timeoutMs: 50_000 }

// A connection whose only call was cancelled may stay open, and would keep Node running.
const sessions = []
after(() => sessions.forEach(session => session.abort()))

function grpcTransport () {
  const sessionManager = new Http2SessionManager(grpc.baseUrl)
  sessions.push(sessionManager)
  return createGrpcTransport({ ...grpc, sessionManager })
}

/** gRPC of Node, and what browsers can use: these call `fetch`, which Node has too. */
export const TRANSPORTS = {
  gRPC: grpcTransport,
  Connect: () => createConnectTransport({ ...http, useBinaryFormat: true }),
  'Connect with JSON': () => createConnectTransport(http),
  'gRPC-Web': () => createGrpcWebTransport(http)
}

export function connect (options, transport = 'gRPC') {
  return new PoolingClient(TRANSPORTS[transport](), options)
}

export function vectorsOf (file) {
  return JSON.parse(fs.readFileSync(new URL(`${file}.json`, FOLDER))).vectors
}

export function tensorOf ({ elementType, shape = [], data = '' }, times = 1) {
  const bytes = Buffer.from(data, 'base64')
  return build(elementType, shape.map(Number), Buffer.concat(Array(times).fill(bytes)))
}

export function expectedTensor ({ elementType, shape, hex, times = 1 }) {
  return build(elementType, shape, Buffer.from(hex.repeat(times), 'hex'))
}

export function specOf (message) {
  const { mode, slidingWindows, adaptiveWindows, globalWindow, layout, tiePolicy, nanPolicy, normP } = message
  const words = { layout, tiePolicy, nanPolicy }
  const spec = { mode: wordOf(mode, 'MODE_') }
  for (const [name, value] of Object.entries(words)) {
    const prefix = name.replace(/[A-Z]/g, '_$&').toUpperCase() + '_'
    if (value) spec[name] = wordOf(value, prefix)
  }
  for (const name of ['countIncludePad', 'divisorOverride']) {
    if (message[name] !== undefined) spec[name] = message[name]
  }
  if (normP !== undefined) spec.normP = Number(normP)
  if (globalWindow) spec.globalWindow = true
  if (adaptiveWindows) spec.adaptiveOutput = adaptiveWindows.outputSizes.map(Number)
  if (slidingWindows) Object.assign(spec, windowsOf(slidingWindows))
  return spec
}

function windowsOf ({ axes, ceilMode, namedPadding }) {
  const windows = { kernel: axes.map(axis => Number(axis.kernel)) }
  for (const name of ['stride', 'dilation']) {
    if (axes[0][name] !== undefined) windows[name] = axes.map(axis => Number(axis[name]))
  }
  windows.padding = namedPadding
    ? wordOf(namedPadding, 'NAMED_PADDING_')
    : axes.map(({ paddingBefore = 0, paddingAfter = 0 }) => [Number(paddingBefore), Number(paddingAfter)])
  if (ceilMode) windows.ceilMode = true
  return windows
}

function wordOf (name, prefix) {
  return name.replace(prefix, '').toLowerCase()
}

function build (elementType, shape, bytes) {
  const dtype = wordOf(elementType, 'ELEMENT_TYPE_')
  const aligned = new Uint8Array(bytes).buffer
  return tensor(new ARRAYS[dtype](aligned), shape, dtype)
}
