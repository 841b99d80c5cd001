// Every call of pooling.v1 from Node, made from the .proto alone: requests and replies.
// The expected numbers are calculated by hand. POOLING_TARGET is the address of the server:
//
//   npm ci --ignore-scripts && POOLING_TARGET=127.0.0.1:50051 npm test
'use strict'

const assert = require('node:assert/strict')
const path = require('node:path')
const { after, test } = require('node:test')

const grpc = require('@grpc/grpc-js')
const protoLoader = require('@grpc/proto-loader')
const protobuf = require('protobufjs')

const protos = path.join(__dirname, '..', '..', 'protos')
const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true }
const definition = protoLoader.loadSync(path.join(protos, 'pooling/v1/pooling.proto'), options)
const { PoolingService } = grpc.loadPackageDefinition(definition).pooling.v1
const rpc = protobuf.loadSync(path.join(__dirname, 'status.proto')).lookup('google.rpc')

const target = process.env.POOLING_TARGET || '127.0.0.1:50051'
const client = new PoolingService(target, grpc.credentials.createInsecure())
after(() => client.close())
const LIMIT_MS = 50_000

// The numbers 1 to 9 as one plane of 3 x 3, and windows of 2 x 2 that overlap.
const x = tensor([1, 1, 3, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9])
const axis = { kernel: 2, stride: 1 }
const max = { mode: 'MODE_MAX', sliding_windows: { axes: [axis, axis] } }
const average = { mode: 'MODE_AVERAGE', sliding_windows: { axes: [axis, axis] } }
const wrong = { mode: 'MODE_MAX', sliding_windows: { axes: [{ kernel: 0 }, axis] } }

// A message with the numbers as float32: little-endian, whatever this machine's order is.
function tensor (shape, numbers) {
  const data = Buffer.alloc(4 * numbers.length)
  numbers.forEach((number, place) => data.writeFloatLE(number, 4 * place))
  return { element_type: 'ELEMENT_TYPE_FLOAT32', shape, data }
}

function numbersOf ({ element_type: type, data }) {
  assert.equal(type, 'ELEMENT_TYPE_FLOAT32')
  return Array.from({ length: data.length / 4 }, (_, place) => data.readFloatLE(4 * place))
}

function call (method, request) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + LIMIT_MS
    client[method](request, { deadline }, (error, reply) => error ? reject(error) : resolve(reply))
  })
}

function stream (method, requests) {
  return new Promise((resolve, reject) => {
    const replies = []
    const duplex = client[method]({ deadline: Date.now() + LIMIT_MS })
    duplex.on('data', reply => replies.push(reply))
    duplex.on('error', reject)
    duplex.on('end', () => resolve(replies))
    for (const request of requests) duplex.write(request)
    duplex.end()
  })
}

// The messages in google.rpc.Status, by their names.
function detailsOf (error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin')
  const status = rpc.lookupType('Status').decode(bytes)
  assert.equal(status.code, error.code)
  return Object.fromEntries(status.details.map(({ type_url: url, typeUrl = url, value }) => {
    const type = typeUrl.split('.').pop()
    return [type, rpc.lookupType(type).decode(value)]
  }))
}

test('Forward: the largest of each window, and which tap it was', async () => {
  const { output, indices } = await call('Forward', { spec: max, return_indices: true, input: x })
  assert.deepEqual(output.shape, [1, 1, 2, 2])
  assert.deepEqual(numbersOf(output), [5, 6, 8, 9])
  assert.equal(indices.element_type, 'ELEMENT_TYPE_UINT8')
  assert.deepEqual([...indices.data], [3, 3, 3, 3]) // the last of four taps, counted from 0
})

test('Forward: a large reply', async () => {
  const [rows, columns] = [256, 512]
  const numbers = Array.from({ length: rows * columns }, (_, place) => place)
  const input = tensor([1, 1, rows, columns], numbers)
  const { output } = await call('Forward', { spec: max, input })
  assert.deepEqual(output.shape, [1, 1, rows - 1, columns - 1])
  const last = numbers.filter(place => place >= columns && place % columns) // of each window
  assert.deepEqual(numbersOf(output), last)
})

test('Forward: averages, and no indices unless asked for', async () => {
  const { output, indices } = await call('Forward', { spec: average, input: x })
  assert.deepEqual(numbersOf(output), [3, 4, 6, 7])
  assert.equal(indices, null)
})

test('Backward: each gradient goes to the tap that was selected', async () => {
  const { indices } = await call('Forward', { spec: max, return_indices: true, input: x })
  const { input_gradient: dx } = await call('Backward', {
    spec: max,
    input_shape: [1, 1, 3, 3],
    indices,
    output_gradient: tensor([1, 1, 2, 2], [1, 2, 3, 4])
  })
  assert.deepEqual(dx.shape, [1, 1, 3, 3])
  assert.deepEqual(numbersOf(dx), [0, 0, 0, 0, 1, 2, 0, 3, 4])
})

test('Backward: an average needs a shape, and overlapping gradients add up', async () => {
  const { input_gradient: dx } = await call('Backward', {
    spec: average,
    input_shape: [1, 1, 3, 3],
    output_gradient: tensor([1, 1, 2, 2], [4, 4, 4, 4])
  })
  assert.deepEqual(numbersOf(dx), [1, 2, 1, 2, 4, 2, 1, 2, 1])
})

test('GetServerInfo: what the server is and what it takes', async () => {
  const { version, backends, limits } = await call('GetServerInfo', {})
  assert.match(version, /^\d+\.\d+\.\d+/)
  const last = backends.at(-1)
  assert.equal(last.name, 'numpy')
  assert.deepEqual(last.modes.toSorted(), [
    'MODE_AVERAGE', 'MODE_LP', 'MODE_MAX', 'MODE_MIN', 'MODE_SUM'
  ])
  assert.ok(limits.max_message_bytes >= 1024)
})

test('GetPlan: sizes without a tensor', async () => {
  const windows = { kernel: 3, stride: 2 }
  const plan = await call('GetPlan', {
    spec: { mode: 'MODE_MAX', sliding_windows: { axes: [windows, windows] } },
    input_shape: [10, 16, 14, 14],
    element_type: 'ELEMENT_TYPE_FLOAT32'
  })
  assert.deepEqual(plan.output_shape, [10, 16, 6, 6])
  assert.equal(plan.window_taps, 9)
  assert.equal(plan.index_element_type, 'ELEMENT_TYPE_UINT8')
})

test('a refusal names the field, and its reason is stable', async () => {
  await assert.rejects(call('Forward', { spec: wrong, input: x }), error => {
    assert.equal(error.code, grpc.status.INVALID_ARGUMENT)
    const { ErrorInfo, BadRequest } = detailsOf(error)
    assert.equal(ErrorInfo.domain, 'pooling.v1')
    assert.equal(ErrorInfo.reason, 'INVALID_SPEC')
    const [{ field, description }] = BadRequest.fieldViolations
    assert.match(field, /kernel/)
    assert.match(description, /kernel/)
    return true
  })
  const { output } = await call('Forward', { spec: max, input: x })
  assert.deepEqual(numbersOf(output), [5, 6, 8, 9])
})

test('ForwardStream: replies in the order of requests, and one that is wrong ends nothing', async () => {
  const replies = await stream('ForwardStream', [
    { id: 70, request: { spec: max, input: x } },
    { id: 5, request: { spec: wrong, input: x } },
    { id: 60, request: { spec: average, input: x } }
  ])
  assert.deepEqual(replies.map(reply => reply.id), [70, 5, 60])
  assert.deepEqual(numbersOf(replies[0].response.output), [5, 6, 8, 9])
  assert.equal(replies[1].error.code, grpc.status.INVALID_ARGUMENT)
  assert.equal(replies[1].error.reason, 'INVALID_SPEC')
  assert.match(replies[1].error.field, /kernel/)
  assert.deepEqual(numbersOf(replies[2].response.output), [3, 4, 6, 7])
})

test('BackwardStream: the same for gradients', async () => {
  const request = {
    spec: average,
    input_shape: [1, 1, 3, 3],
    output_gradient: tensor([1, 1, 2, 2], [4, 4, 4, 4])
  }
  const replies = await stream('BackwardStream', [
    { id: 2, request },
    { id: 1, request: { ...request, input_shape: [1, 1, 9, 9] } }
  ])
  assert.deepEqual(replies.map(reply => reply.id), [2, 1])
  assert.deepEqual(numbersOf(replies[0].response.input_gradient), [1, 2, 1, 2, 4, 2, 1, 2, 1])
  assert.equal(replies[1].error.code, grpc.status.INVALID_ARGUMENT)
})
