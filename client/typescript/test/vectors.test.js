// The test vectors through PoolingClient, in one message each and in many small ones.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { PoolingError } from '../dist/index.js'
import { LIMIT, TRANSPORTS, connect, expectedTensor, specOf, tensorOf, vectorsOf } from './support.js'

const CHUNKS = 'gRPC, chunks of one plane'
const WAYS = [...Object.keys(TRANSPORTS), CHUNKS]
const FILES = ['layers', 'types', 'values'].flatMap(kind => [`forward_${kind}`, `backward_${kind}`])

function clientOf (way) {
  return way === CHUNKS ? connect({ chunkBytes: 1, concurrency: 8 }) : connect({}, way)
}

for (const way of WAYS) {
  for (const file of [...FILES, 'large']) {
    test(`${file} over ${way}`, async () => {
      const client = clientOf(way)
      for (const vector of vectorsOf(file)) {
        const reply = await call(client, vector)
        const names = Object.keys(reply).filter(name => reply[name] !== undefined)
        assert.deepEqual(names.sort(), Object.keys(vector.reply).sort(), vector.name)
        for (const [name, record] of Object.entries(vector.reply)) {
          assertTensor(reply[name], expectedTensor(record), `${vector.name}: ${name}`)
        }
      }
    })
  }
}

for (const way of Object.keys(TRANSPORTS)) {
  test(`errors have the code, the reason and the field over ${way}`, async () => {
    const client = clientOf(way)
    const asked = ['padding as large as the kernel', 'NaN rejected', 'an index outside of its window']
    const vectors = vectorsOf('errors').filter(({ name }) => asked.includes(name))
    assert.equal(vectors.length, asked.length)
    for (const vector of vectors) {
      await assert.rejects(call(client, vector), error => {
        assert.ok(error instanceof PoolingError, String(error))
        const { code, reason, field } = error
        assert.deepEqual({ code, reason, field }, vector.error)
        return true
      })
    }
  })
}

async function call (client, { method, request, repeat = {} }) {
  const spec = specOf(request.spec)
  if (method === 'Forward') {
    const { returnIndices } = request
    return await client.forward(tensorOf(request.input, repeat.input), spec, { ...LIMIT, returnIndices })
  }
  const options = { ...LIMIT, inputShape: request.inputShape.map(Number) }
  if (request.indices) options.indices = tensorOf(request.indices)
  if (request.input) options.input = tensorOf(request.input)
  return { inputGradient: await client.backward(tensorOf(request.outputGradient), spec, options) }
}

// Bytes are compared: assert.deepEqual takes every NaN for every other.
function assertTensor (actual, expected, name) {
  assert.equal(actual.dtype, expected.dtype, name)
  assert.deepEqual(actual.shape, expected.shape, name)
  assert.ok(bytesOf(actual).equals(bytesOf(expected)), name)
}

function bytesOf ({ data }) {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength)
}
