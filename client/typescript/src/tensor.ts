import { create } from '@bufbuild/protobuf'
import { ElementType, type Tensor as TensorMessage, TensorSchema } from './gen/pooling/v1/pooling_pb.js'

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
  uint32: Uint32Array,
  int64: BigInt64Array
} as const

/** Element types. `float16` and `bfloat16` are held as their bits, in a `Uint16Array`. */
export type DType = keyof typeof ARRAYS
export type TensorData<T extends DType = DType> = InstanceType<(typeof ARRAYS)[T]>

/** A dense tensor in row-major order, of shape (N, C, D1..Dn) or (N, D1..Dn, C). */
export interface Tensor<T extends DType = DType> {
  readonly dtype: T
  readonly shape: readonly number[]
  readonly data: TensorData<T>
}

/** Thrown before anything is sent if an argument cannot be put into a message. */
export class ArgumentError extends TypeError {
  constructor (readonly field: string, message: string) {
    super(`${field}: ${message}`)
    this.name = 'ArgumentError'
  }
}

/**
 * Returns a tensor; the data is not copied.
 *
 * @param shape sizes of the axes; their product is the length of `data`.
 * @param dtype needed for `float16` and `bfloat16`, whose data is a `Uint16Array`.
 */
export function tensor<T extends DType> (data: TensorData<T>, shape: readonly number[], dtype?: T): Tensor<T> {
  const type = dtype ?? dtypeOf(data)
  if (!(data instanceof ARRAYS[type])) {
    throw new ArgumentError('data', `${type} needs a ${ARRAYS[type].name}, not ${kindOf(data)}`)
  }
  const count = sizeOf(shape)
  if (data.length !== count) {
    throw new ArgumentError('data', `${data.length} elements; shape [${shape.join(', ')}] has ${count}`)
  }
  return { dtype: type as T, shape, data }
}

/** Returns the number of elements of a shape. */
export function sizeOf (shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

/** Returns the number of bytes per element. */
export function elementBytes (dtype: DType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT
}

/** Returns a zero-filled array for `count` elements. */
export function emptyData<T extends DType> (dtype: T, count: number): TensorData<T> {
  return new ARRAYS[dtype](count) as TensorData<T>
}

/** Returns the message of a tensor; it shares the tensor's memory. */
export function encodeTensor ({ dtype, shape, data }: Tensor): TensorMessage {
  const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
  const elementType = ElementType[dtype.toUpperCase() as keyof typeof ElementType]
  return create(TensorSchema, { elementType, shape: shape.map(BigInt), data: bytes })
}

/** Returns the tensor in a message; it shares the message's memory if the bytes are aligned. */
export function decodeTensor (message: TensorMessage): Tensor {
  const dtype = ElementType[message.elementType]?.toLowerCase() as DType
  const array = ARRAYS[dtype]
  if (array === undefined) throw new ArgumentError('elementType', `${message.elementType} is unknown`)
  const { data } = message
  const isAligned = data.byteOffset % array.BYTES_PER_ELEMENT === 0
  const bytes = isAligned ? data : data.slice()
  const elements = new array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / array.BYTES_PER_ELEMENT)
  return { dtype, shape: message.shape.map(Number), data: elements }
}

function dtypeOf (data: unknown): DType {
  const found = Object.entries(ARRAYS).find(([name, array]) => !name.endsWith('float16') && data instanceof array)
  if (found === undefined) throw new ArgumentError('data', `${kindOf(data)} is not a typed array of a known element type`)
  return found[0] as DType
}

function kindOf (data: unknown): string {
  return (data as object | null)?.constructor?.name ?? String(data)
}
