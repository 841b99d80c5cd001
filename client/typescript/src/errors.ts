import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema } from './gen/status_pb.js'

/** An error of the service, or of the way to it. */
export class PoolingError extends Error {
  /**
   * @param code name of the gRPC status, such as `INVALID_ARGUMENT`.
   * @param reason stable reason, such as `INVALID_SPEC`; empty if the service was not reached.
   * @param field path of the invalid field in the request; may be empty.
   * @param metadata machine-readable facts, such as a limit and its value.
   */
  constructor (
    message: string,
    readonly code: string,
    readonly reason: string,
    readonly field: string,
    readonly metadata: Readonly<Record<string, string>>,
    options?: ErrorOptions
  ) {
    super(message, options)
    this.name = 'PoolingError'
  }
}

/** Returns a `PoolingError` for whatever a transport has thrown. */
export function toPoolingError (thrown: unknown): PoolingError {
  const error = ConnectError.from(thrown)
  const [info] = error.findDetails(ErrorInfoSchema)
  const [bad] = error.findDetails(BadRequestSchema)
  return new PoolingError(
    error.rawMessage,
    codeName(error.code),
    info?.reason ?? '',
    bad?.fieldViolations[0]?.field ?? '',
    info?.metadata ?? {},
    { cause: thrown }
  )
}

function codeName (code: Code): string {
  return code === Code.Canceled ? 'CANCELLED' : Code[code]!.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()
}
