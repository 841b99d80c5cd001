import { type MessageInitShape } from '@bufbuild/protobuf'
import { type CallOptions, type Client, type Transport, createClient } from '@connectrpc/connect'
import { type Range, chunkShape, planeAxes, planeBytes, rangesOf, slice } from './chunks.js'
import { toPoolingError } from './errors.js'
import {
  type BackwardRequestSchema,
  type ForwardResponse,
  type GetServerInfoResponse,
  IndexFormat,
  PoolingService,
  type Tensor as TensorMessage
} from './gen/pooling/v1/pooling_pb.js'
import { type PoolSpec, encodeSpec } from './spec.js'
import { ArgumentError, type Tensor, decodeTensor, emptyData, encodeTensor, sizeOf } from './tensor.js'

/** Options of every call: `signal`, `timeoutMs`, `headers`. */
export type { CallOptions }

export interface ClientOptions {
  /** Calls with a larger tensor are split into several messages; default 2 MiB. */
  chunkBytes?: number
  /** Messages of one call that are in flight at once; default 4. */
  concurrency?: number
}

export interface ForwardOptions extends CallOptions {
  /** `max` and `min` only. */
  returnIndices?: boolean
  /** Default `window`; `plane` is PyTorch's format, `tensor` is that of ONNX. */
  indexFormat?: 'window' | 'plane' | 'tensor'
}

export interface BackwardOptions extends CallOptions {
  /** Shape of the forward input; required unless `input` is given. */
  inputShape?: readonly number[]
  /** `max` and `min`: the indices of the forward call. */
  indices?: Tensor
  /** `lp`, and `max` and `min` instead of `indices`: the input of the forward call. */
  input?: Tensor
}

export interface ForwardResult { output: Tensor, indices?: Tensor }

type BackwardRequest = MessageInitShape<typeof BackwardRequestSchema>

/**
 * Client of `pooling.v1.PoolingService`.
 *
 * Planes (one channel of one batch item) are pooled independently, so a large tensor travels in
 * several messages. The result is bit-identical to that of one message.
 */
export class PoolingClient {
  readonly #service: Client<typeof PoolingService>
  readonly #chunkBytes: number
  readonly #concurrency: number

  /** @param transport for example `createGrpcTransport` of `@connectrpc/connect-node`. */
  constructor (transport: Transport, options: ClientOptions = {}) {
    this.#service = createClient(PoolingService, transport)
    this.#chunkBytes = options.chunkBytes ?? 2 << 20
    this.#concurrency = options.concurrency ?? 4
  }

  /**
   * Pools a tensor of shape (N, C, D1..Dn), or (N, D1..Dn, C) with `layout: 'channels_last'`.
   *
   * @throws ArgumentError before anything is sent; PoolingError for an error of the service.
   */
  async forward (input: Tensor, spec: PoolSpec, options: ForwardOptions = {}): Promise<ForwardResult> {
    const { returnIndices = false, indexFormat, ...call } = options
    const message = {
      spec: encodeSpec(spec, spatialAxes(input)),
      returnIndices,
      ...(indexFormat && { indexFormat: IndexFormat[indexFormat.toUpperCase() as 'WINDOW'] })
    }
    const axes = planeAxes(spec.layout)
    const batch = input.shape.slice(0, axes)
    const ranges = indexFormat === 'tensor' // numbers of the whole tensor
      ? undefined
      : this.#ranges(batch, planeBytes(input, axes))
    if (ranges === undefined) {
      const reply = await this.#call(call, to => this.#service.forward({ ...message, input: encodeTensor(input) }, to))
      return resultOf(reply)
    }
    const replies = await this.#inParallel(ranges, call, (range, to) =>
      this.#service.forward({ ...message, input: encodeTensor(slice(input, range, axes)) }, to))
    const output = joined(replies.map(reply => reply.output!), batch)
    return returnIndices ? { output, indices: joined(replies.map(reply => reply.indices!), batch) } : { output }
  }

  /**
   * Returns the gradient of the input of a pooling layer, of the shape of the forward input.
   *
   * @throws ArgumentError before anything is sent; PoolingError for an error of the service.
   */
  async backward (outputGradient: Tensor, spec: PoolSpec, options: BackwardOptions = {}): Promise<Tensor> {
    const { inputShape, indices, input, ...call } = options
    const shape = inputShape ?? input?.shape
    if (shape === undefined) throw new ArgumentError('inputShape', 'needed unless input is given')
    if (indices !== undefined && input !== undefined) throw new ArgumentError('indices', 'give either indices or input, not both')
    const axes = planeAxes(spec.layout)
    const batch = shape.slice(0, axes)
    const rest = shape.slice(axes)
    const message = { spec: encodeSpec(spec, spatialAxes(outputGradient)) }
    const request = (sizes: readonly number[], part: (whole: Tensor) => Tensor): BackwardRequest => ({
      ...message,
      inputShape: sizes.map(BigInt),
      outputGradient: encodeTensor(part(outputGradient)),
      ...(indices && { residual: { case: 'indices' as const, value: encodeTensor(part(indices)) } }),
      ...(input && { residual: { case: 'input' as const, value: encodeTensor(part(input)) } })
    })
    const bytes = Math.max(planeBytes(outputGradient, axes), planeBytes({ ...outputGradient, shape }, axes))
    const ranges = canSplit(batch, outputGradient, indices, input) ? this.#ranges(batch, bytes) : undefined
    if (ranges === undefined) {
      const reply = await this.#call(call, to => this.#service.backward(request(shape, whole => whole), to))
      return decodeTensor(reply.inputGradient!)
    }
    const replies = await this.#inParallel(ranges, call, (range, to) =>
      this.#service.backward(request(chunkShape(range, rest, axes), whole => slice(whole, range, axes)), to))
    return joined(replies.map(reply => reply.inputGradient!), batch)
  }

  /** Returns the version, the backends and the limits of the server. */
  async serverInfo (call: CallOptions = {}): Promise<GetServerInfoResponse> {
    return await this.#call(call, to => this.#service.getServerInfo({}, to))
  }

  /** Returns the ranges of planes to send, or undefined if one message is enough. */
  #ranges (batch: readonly number[], bytes: number): Range[] | undefined {
    const ranges = rangesOf(sizeOf(batch), bytes, this.#chunkBytes)
    return ranges.length > 1 ? ranges : undefined
  }

  async #call<Reply> (call: CallOptions, send: (call: CallOptions) => Promise<Reply>): Promise<Reply> {
    try {
      return await send(call)
    } catch (thrown) {
      throw toPoolingError(thrown)
    }
  }

  /** Sends one message per range, some at once; the first error aborts the others. */
  async #inParallel<Reply> (
    ranges: Range[], call: CallOptions, send: (range: Range, call: CallOptions) => Promise<Reply>
  ): Promise<Reply[]> {
    const abort = new AbortController()
    const signal = call.signal ? AbortSignal.any([call.signal, abort.signal]) : abort.signal
    const deadline = call.timeoutMs === undefined ? undefined : performance.now() + call.timeoutMs
    const replies = new Array<Reply>(ranges.length)
    const queue = ranges.entries()
    const sendAll = async (): Promise<void> => {
      for (const [number, range] of queue) {
        const left = deadline === undefined
          ? {}
          : { timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())) }
        replies[number] = await this.#call({ ...call, ...left, signal }, to => send(range, to))
      }
    }
    try {
      await Promise.all(Array.from({ length: this.#concurrency }, sendAll))
    } catch (error) {
      abort.abort()
      throw error
    }
    return replies
  }
}

function spatialAxes (tensor: Tensor): number {
  const axes = tensor.shape.length - 2
  if (axes < 1) {
    throw new ArgumentError('shape', `[${tensor.shape.join(', ')}] has ${tensor.shape.length} axes; at least 3 are needed`)
  }
  return axes
}

/** Returns true if all tensors agree on batch and channels; otherwise the server reports why not. */
function canSplit (batch: readonly number[], ...tensors: (Tensor | undefined)[]): boolean {
  return tensors.every(each => each === undefined || batch.every((size, axis) => size === each.shape[axis])) &&
    tensors[1]?.dtype !== 'int64' // indices of the whole tensor, perhaps
}

function resultOf ({ output, indices }: ForwardResponse): ForwardResult {
  return { output: decodeTensor(output!), ...(indices && { indices: decodeTensor(indices) }) }
}

function joined (messages: TensorMessage[], batch: readonly number[]): Tensor {
  const parts = messages.map(decodeTensor)
  const { dtype, shape: [...first] } = parts[0]!
  const shape = [...batch, ...first.slice(batch.length)]
  const data = emptyData(dtype, sizeOf(shape))
  let place = 0
  for (const part of parts) {
    data.set(part.data as never, place)
    place += part.data.length
  }
  return { dtype, shape, data }
}
