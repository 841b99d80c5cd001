import { type Tensor, elementBytes, sizeOf } from './tensor.js'

/** A range of planes: one plane is one channel of one batch item. */
export interface Range { readonly begin: number, readonly end: number }

/**
 * Returns the ranges in which to send a call, each of about `chunkBytes` of the largest tensor.
 *
 * @param planes number of independent planes.
 * @param planeBytes bytes of one plane of the largest tensor of the call.
 */
export function rangesOf (planes: number, planeBytes: number, chunkBytes: number): Range[] {
  const count = Math.max(1, Math.floor(chunkBytes / Math.max(1, planeBytes)))
  const ranges: Range[] = []
  for (let begin = 0; begin < planes; begin += count) ranges.push({ begin, end: Math.min(begin + count, planes) })
  return ranges.length > 0 ? ranges : [{ begin: 0, end: 0 }]
}

/**
 * Number of leading axes that count planes: batch and channels, or the batch if channels are last.
 */
export function planeAxes (layout: string | undefined): number {
  return layout === 'channels_last' ? 1 : 2
}

/** Returns the planes of a range as a tensor whose first axis, or axes (1, planes), count them. */
export function slice (whole: Tensor, range: Range, axes: number): Tensor {
  const rest = whole.shape.slice(axes)
  const size = sizeOf(rest)
  const data = whole.data.subarray(range.begin * size, range.end * size) as Tensor['data']
  return { dtype: whole.dtype, shape: chunkShape(range, rest, axes), data }
}

/** Returns the shape of a chunk: a batch of one with the planes as channels, or a batch. */
export function chunkShape ({ begin, end }: Range, rest: readonly number[], axes: number): number[] {
  return axes === 2 ? [1, end - begin, ...rest] : [end - begin, ...rest]
}

/** Returns the bytes of one plane; 0 without a tensor. */
export function planeBytes (whole: Tensor | undefined, axes: number): number {
  return whole === undefined ? 0 : sizeOf(whole.shape.slice(axes)) * elementBytes(whole.dtype)
}
