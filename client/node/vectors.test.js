// The test vectors (docs/vectors.md), sent from Node with the .proto alone.
// POOLING_TARGET is the address of the server.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { after, test } = require('node:test')

const grpc = require('@grpc/grpc-js')
const protoLoader = require('@grpc/proto-loader')
const protobuf = require('protobufjs')

const root = path.join(__dirname, '..', '..')
const options = { longs: String, enums: String, defaults: true, includeDirs: [path.join(root, 'protos')] }
const definition = protoLoader.loadSync('pooling/v1/pooling.proto', options)
const { PoolingService } = grpc.loadPackageDefinition(definition).pooling.v1
const rpc = protobuf.loadSync(path.join(__dirname, 'status.proto')).lookup('google.rpc')

// Replies may be larger than 4 MiB, the default limit of gRPC.
const unlimited = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }
const target = process.env.POOLING_TARGET || '127.0.0.1:50051'
const client = new PoolingService(target, grpc.credentials.createInsecure(), unlimited)
after(() => client.close())
const LIMIT_MS = 50_000

// A vector's request: protobuf's JSON form, with numbers where JSON has strings.
function requestOf ({ request, repeat = {} }) {
  const message = structuredClone(request)
  for (const [field, times] of Object.entries(repeat)) {
    message[field].data = Buffer.concat(Array(times).fill(Buffer.from(message[field].data, 'base64')))
  }
  if (message.spec?.normP) message.spec.normP = Number(message.spec.normP) // "Infinity"
  return message
}

function assertTensors (reply, expected) {
  for (const [name, record] of Object.entries(expected)) {
    if (name === 'more') {
      assert.equal(reply.more.length, record.length)
      record.forEach((layer, place) => assertTensors(reply.more[place], layer))
      continue
    }
    const { elementType, shape, data } = reply[name]
    assert.equal(elementType, record.elementType)
    assert.deepEqual(shape.map(Number), record.shape)
    const bytes = Buffer.from(record.hex.repeat(record.times ?? 1), 'hex')
    assert.ok(data.equals(bytes), `${name}: ${data.subarray(0, 64).toString('hex')}...`)
  }
  if (!expected.indices) assert.ok(!reply.indices)
}

function errorOf (error) {
  const status = rpc.lookupType('Status').decode(error.metadata.get('grpc-status-details-bin')[0])
  const details = Object.fromEntries(status.details.map(({ type_url: url, typeUrl = url, value }) => {
    const type = typeUrl.split('.').pop()
    return [type, rpc.lookupType(type).decode(value)]
  }))
  const { fieldViolations, field_violations: violations = fieldViolations } = details.BadRequest
  const { reason } = details.ErrorInfo
  return { code: grpc.status[error.code], reason, field: violations[0].field }
}

function unary (vector) {
  return new Promise(resolve => {
    const deadline = Date.now() + LIMIT_MS
    client[vector.method](requestOf(vector), { deadline }, (error, reply) => resolve({ error, reply }))
  })
}

function stream ({ method, requests }) {
  return new Promise((resolve, reject) => {
    const replies = []
    const duplex = client[method]({ deadline: Date.now() + LIMIT_MS })
    duplex.on('data', reply => replies.push(reply))
    duplex.on('error', reject)
    duplex.on('end', () => resolve(replies))
    for (const item of requests) duplex.write({ id: item.id, request: requestOf(item) })
    duplex.end()
  })
}

async function check (vector) {
  if (vector.requests) {
    const replies = await stream(vector)
    assert.deepEqual(replies.map(({ id }) => Number(id)), vector.replies.map(({ id }) => id))
    replies.forEach(({ response, error }, place) => {
      const expected = vector.replies[place]
      if (expected.reply) return assertTensors(response, expected.reply)
      const { code, reason, field } = error
      assert.deepEqual({ code: grpc.status[code], reason, field }, expected.error)
    })
    return
  }
  const { error, reply } = await unary(vector)
  if (vector.error) return assert.deepEqual(errorOf(error), vector.error)
  assert.ifError(error)
  assertTensors(reply, vector.reply)
}

const folder = path.join(root, 'tests', 'vectors')
for (const file of fs.readdirSync(folder).filter(name => name.endsWith('.json')).sort()) {
  const { vectors } = JSON.parse(fs.readFileSync(path.join(folder, file)))
  test(file, async () => {
    for (const vector of vectors) {
      await check(vector).catch(error => {
        throw new Error(`${vector.method}: ${vector.name}: ${error.message}`, { cause: error })
      })
    }
  })
}
