// Arguments, errors and options of PoolingClient.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { createGrpcTransport } from '@connectrpc/connect-node'
import { ArgumentError, PoolingClient, PoolingError, tensor } from '../dist/index.js'
import { LIMIT, connect } from './support.js'

const x = tensor(Float32Array.from({ length: 64 }, (_, place) => place), [2, 2, 4, 4])

test('the example of the README', async () => {
  const client = connect()
  const { output, indices } = await client.forward(x, { mode: 'max', kernel: 2 }, { ...LIMIT, returnIndices: true })
  assert.deepEqual([...output.data.subarray(0, 4)], [5, 7, 13, 15])
  assert.deepEqual(output.shape, [2, 2, 2, 2])
  assert.equal(indices.dtype, 'uint8')
  const gradient = await client.backward(output, { mode: 'max', kernel: 2 }, { ...LIMIT, indices, inputShape: x.shape })
  assert.deepEqual([...gradient.data.subarray(4, 8)], [0, 5, 0, 7])
})

test('indices of the whole tensor are those of one message', async () => {
  const options = { ...LIMIT, returnIndices: true, indexFormat: 'tensor' }
  const { indices } = await connect({ chunkBytes: 1 }).forward(x, { mode: 'max', kernel: 2 }, options)
  assert.deepEqual([...indices.data.subarray(12)], [53n, 55n, 61n, 63n])
})

test('wrong arguments are rejected before anything is sent', async () => {
  const nowhere = new PoolingClient(createGrpcTransport({ baseUrl: 'http://127.0.0.1:9' }))
  const cases = [
    ['kernel', { mode: 'max', kernel: [2, 2, 2] }],
    ['kernel', { mode: 'max', kernel: 1.5 }],
    ['kernel', { mode: 'max' }],
    ['adaptiveOutput', { mode: 'max', kernel: 2, adaptiveOutput: 2 }],
    ['stride', { mode: 'max', globalWindow: true, stride: 2 }],
    ['mode', { mode: 'median', kernel: 2 }],
    ['padding', { mode: 'max', kernel: 2, padding: 'full' }]
  ]
  for (const [field, spec] of cases) {
    await assert.rejects(nowhere.forward(x, spec), error => error instanceof ArgumentError && error.field === field)
  }
  assert.throws(() => tensor(new Float32Array(3), [1, 1, 4]), { message: 'data: 3 elements; shape [1, 1, 4] has 4' })
  assert.throws(() => tensor([1, 2], [1, 1, 2]), ArgumentError)
  assert.throws(() => tensor(new Float32Array(2), [1, 1, 2], 'float16'), ArgumentError)
})

test('a server that is not there, an expired and a cancelled call', async () => {
  const nowhere = new PoolingClient(createGrpcTransport({ baseUrl: 'http://127.0.0.1:9' }))
  const spec = { mode: 'max', kernel: 2 }
  await assert.rejects(nowhere.forward(x, spec), error => error instanceof PoolingError && error.code === 'UNAVAILABLE')
  const signal = AbortSignal.abort()
  for (const options of [{}, { chunkBytes: 1 }]) {
    await assert.rejects(connect(options).forward(x, spec, { signal }), { code: 'CANCELLED' })
  }
})

test('the first error of a large call ends it', async () => {
  const values = Float32Array.from(x.data)
  values[20] = NaN
  const call = connect({ chunkBytes: 1 }).forward(tensor(values, x.shape), { mode: 'max', kernel: 2, nanPolicy: 'error' }, LIMIT)
  await assert.rejects(call, { code: 'INVALID_ARGUMENT', reason: 'INVALID_TENSOR', field: 'input' })
})

test('the server describes itself', async () => {
  const { version, limits } = await connect().serverInfo(LIMIT)
  assert.match(version, /^\d+\.\d+/)
  assert.ok(limits.maxMessageBytes > 0n)
})
