import { connect as connectHttp2, constants } from "node:http2";
import { connect } from "node:net";

/** Status codes of gRPC that are told apart here: https://grpc.io/docs/guides/status-codes. */
export const grpcCodes = {
  deadlineExceeded: 4,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
};

/** A call that the server answered with an error, or did not answer. */
export class GrpcError extends Error {
  override readonly name = "GrpcError";
  /** A status code of gRPC. */
  readonly code: number;

  /** `details`: the server's own words; if it did not answer, the system's word for why, such as ECONNREFUSED. */
  constructor(code: number, details: string) {
    super(details);
    this.code = code;
  }
}

/** What containerd sends at most, and kubelet takes: 16 MiB. */
const longestAnswer = 16 << 20;
const prefixBytes = 5;
/** A timer of Node's holds 31 bits of milliseconds. */
const longestMs = 2 ** 31 - 1;

/**
 * One call to a gRPC server at a Unix socket, with one message each way, on a connection of its own: whatever became of the
 * server since the last call, there is nothing to reconnect. This is the whole of gRPC that the CRI needs, as
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md describes it, on Node's own HTTP/2. The usual packages
 * bring load balancing, name resolution and interceptors; loading them took longer than the rest of a run.
 *
 * @param socket the path by which this process reaches it
 * @param path "/package.Service/Method"
 * @param timeoutMs from the connection to the last byte; the server learns of it when the connection ends
 * @returns the bytes of the answer's message
 * @throws GrpcError
 */
export function unaryCall(socket: string, path: string, message: Uint8Array, timeoutMs: number): Promise<Buffer> {
  const allowedMs = Math.min(timeoutMs, longestMs);
  return new Promise((resolve, reject) => {
    const session = connectHttp2("http://localhost", { createConnection: () => connect(socket) });
    const fail = (code: number, details: string): void => reject(new GrpcError(code, details));
    const timer = setTimeout(() => {
      fail(grpcCodes.deadlineExceeded, `no answer within ${allowedMs} ms`);
      session.destroy();
    }, allowedMs);
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: "POST",
      [constants.HTTP2_HEADER_PATH]: path,
      [constants.HTTP2_HEADER_TE]: "trailers",
      [constants.HTTP2_HEADER_CONTENT_TYPE]: "application/grpc",
    });
    // An answer without a message has its status in the first headers, another one in the last.
    let headers: Headers = {};
    const chunks: Buffer[] = [];
    let length = 0;
    let reason = "the connection ended before the answer's status";
    stream.on("response", (first) => {
      headers = first;
    });
    stream.on("trailers", (last) => {
      headers = { ...headers, ...last };
    });
    stream.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= longestAnswer + prefixBytes) return void chunks.push(chunk);
      fail(grpcCodes.resourceExhausted, `the answer is longer than ${longestAnswer} bytes`);
      session.destroy();
    });
    for (const one of [session, stream])
      one.on("error", (error: NodeJS.ErrnoException) => {
        reason = systemsWord(error);
      });
    stream.on("close", () => {
      clearTimeout(timer);
      session.destroy();
      const status = headers["grpc-status"];
      if (status === undefined) return fail(grpcCodes.unavailable, notOk(headers) ?? reason);
      if (status !== "0") return fail(Number(status), percentDecoded(headers["grpc-message"]));
      const answer = messageIn(Buffer.concat(chunks));
      if (answer === undefined) fail(grpcCodes.internal, "the answer is not one uncompressed message");
      else resolve(answer);
    });
    stream.end(framed(message));
  });
}

/** Node reports a failed connection as a cancelled stream, and why as its cause. */
const systemsWord = (error: NodeJS.ErrnoException): string =>
  error.cause instanceof Error ? systemsWord(error.cause) : (error.code ?? error.message);

type Headers = Record<string, string | string[] | number | undefined>;

/** An answer of whoever is no gRPC server. */
function notOk(headers: Headers): string | undefined {
  const answer = headers[constants.HTTP2_HEADER_STATUS];
  return answer === undefined || answer === 200 ? undefined : `HTTP status ${answer}`;
}

/** A message is preceded by whether it is compressed (never, here), and its length. */
function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(prefixBytes);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

function messageIn(body: Buffer): Buffer | undefined {
  if (body.length < prefixBytes || body[0] !== 0 || body.readUInt32BE(1) !== body.length - prefixBytes)
    return undefined;
  return body.subarray(prefixBytes);
}

/** Servers encode what is not printable ASCII; a text that is not encoded well is better than none. */
function percentDecoded(value: Headers[string]): string {
  const text = String(value ?? "no reason given");
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
