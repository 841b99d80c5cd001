import { create } from '@bufbuild/protobuf'
import {
  AdaptiveWindowsSchema,
  GlobalWindowSchema,
  Layout,
  Mode,
  NamedPadding,
  NanPolicy,
  type PoolSpec as SpecMessage,
  PoolSpecSchema,
  SlidingWindowsSchema,
  TiePolicy
} from './gen/pooling/v1/pooling_pb.js'
import { ArgumentError } from './tensor.js'

/** A number for all spatial axes, or one per axis. */
export type PerAxis = number | readonly number[]

/** The padding: symmetric, before and after per axis, or by name. */
export type Padding = PerAxis | readonly (readonly [before: number, after: number])[] |
  'valid' | 'same_upper' | 'same_lower'

/** A pooling layer. Give exactly one of `kernel`, `adaptiveOutput` and `globalWindow`. */
export interface PoolSpec {
  mode: 'max' | 'min' | 'average' | 'sum' | 'lp'
  kernel?: PerAxis
  /** Default: the kernel. */
  stride?: PerAxis
  padding?: Padding
  dilation?: PerAxis
  ceilMode?: boolean
  /** Number of outputs per axis, for windows of nearly equal sizes. */
  adaptiveOutput?: PerAxis
  /** One window over all spatial axes. */
  globalWindow?: boolean
  layout?: 'channels_first' | 'channels_last'
  /** `average` only; default true. */
  countIncludePad?: boolean
  /** `average` only. */
  divisorOverride?: number
  /** `lp` only; default 2. */
  normP?: number
  /** `max` and `min` only. */
  tiePolicy?: 'first' | 'all' | 'split'
  /** `max` and `min` only. */
  nanPolicy?: 'propagate' | 'ignore' | 'error'
}

/** Returns the message of a spec for a tensor with `axes` spatial axes. */
export function encodeSpec (spec: PoolSpec, axes: number): SpecMessage {
  const { countIncludePad, divisorOverride, normP } = spec
  return create(PoolSpecSchema, {
    mode: enumValue(Mode, 'mode', spec.mode),
    windows: windowsOf(spec, axes),
    ...(spec.layout && { layout: enumValue(Layout, 'layout', spec.layout) }),
    ...(spec.tiePolicy && { tiePolicy: enumValue(TiePolicy, 'tiePolicy', spec.tiePolicy) }),
    ...(spec.nanPolicy && { nanPolicy: enumValue(NanPolicy, 'nanPolicy', spec.nanPolicy) }),
    ...(countIncludePad !== undefined && { countIncludePad }),
    ...(divisorOverride !== undefined && { divisorOverride }),
    ...(normP !== undefined && { normP })
  })
}

const WINDOWS = ['kernel', 'adaptiveOutput', 'globalWindow'] as const
const SLIDING_ONLY = ['stride', 'padding', 'dilation', 'ceilMode'] as const

function windowsOf (spec: PoolSpec, axes: number): NonNullable<SpecMessage['windows']> {
  const given = WINDOWS.filter(name => spec[name] !== undefined && spec[name] !== false)
  if (given.length !== 1) {
    throw new ArgumentError(given[1] ?? 'kernel', `give exactly one of ${WINDOWS.join(', ')}; got ${given.join(', ') || 'none'}`)
  }
  if (spec.kernel !== undefined) return { case: 'slidingWindows', value: slidingWindows(spec, axes) }
  const excess = SLIDING_ONLY.find(name => spec[name] !== undefined)
  if (excess !== undefined) throw new ArgumentError(excess, `applies to windows with a kernel only, not to ${given[0]}`)
  if (spec.globalWindow) return { case: 'globalWindow', value: create(GlobalWindowSchema) }
  const outputSizes = perAxis(spec.adaptiveOutput!, axes, 'adaptiveOutput')
  return { case: 'adaptiveWindows', value: create(AdaptiveWindowsSchema, { outputSizes }) }
}

function slidingWindows (spec: PoolSpec, axes: number) {
  const kernels = perAxis(spec.kernel!, axes, 'kernel')
  const strides = spec.stride === undefined ? [] : perAxis(spec.stride, axes, 'stride')
  const dilations = spec.dilation === undefined ? [] : perAxis(spec.dilation, axes, 'dilation')
  const padding = spec.padding ?? 0
  const isNamed = typeof padding === 'string'
  const pads = isNamed ? [] : padsOf(padding, axes)
  return create(SlidingWindowsSchema, {
    axes: kernels.map((kernel, axis) => ({
      kernel,
      ...(strides[axis] !== undefined && { stride: strides[axis] }),
      ...(dilations[axis] !== undefined && { dilation: dilations[axis] }),
      paddingBefore: pads[axis]?.[0] ?? 0n,
      paddingAfter: pads[axis]?.[1] ?? 0n
    })),
    ceilMode: spec.ceilMode ?? false,
    ...(isNamed && { namedPadding: enumValue(NamedPadding, 'padding', padding) })
  })
}

function padsOf (padding: Exclude<Padding, string>, axes: number): [bigint, bigint][] {
  if (typeof padding === 'number') return Array.from({ length: axes }, () => [toInteger(padding, 'padding'), toInteger(padding, 'padding')])
  checkLength(padding, axes, 'padding')
  return padding.map(pad => {
    const [before, after] = typeof pad === 'number' ? [pad, pad] : pad
    return [toInteger(before, 'padding'), toInteger(after, 'padding')]
  })
}

function perAxis (value: PerAxis, axes: number, field: string): bigint[] {
  const values = typeof value === 'number' ? Array<number>(axes).fill(value) : value
  checkLength(values, axes, field)
  return values.map(each => toInteger(each, field))
}

function checkLength (values: readonly unknown[], axes: number, field: string): void {
  if (values.length !== axes) {
    throw new ArgumentError(field, `${values.length} values; the tensor has ${axes} spatial axes`)
  }
}

function toInteger (value: number, field: string): bigint {
  if (!Number.isSafeInteger(value)) throw new ArgumentError(field, `${value} is not an integer`)
  return BigInt(value)
}

function enumValue<E extends Record<string, string | number>> (values: E, field: string, name: string): number {
  const value = values[name.toUpperCase()]
  if (typeof value !== 'number' || value === 0) {
    const legal = Object.keys(values).filter(key => values[key] !== 0 && Number.isNaN(Number(key)))
    throw new ArgumentError(field, `"${name}" is unknown; legal: ${legal.map(key => key.toLowerCase()).join(', ')}`)
  }
  return value
}
