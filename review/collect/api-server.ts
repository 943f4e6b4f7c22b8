import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import type { KubeConfig } from "@kubernetes/client-node";
import { z } from "zod";
import { longestBundle } from "../../node-installer/host/bundle.ts";
import { fromJson } from "../../runtime/from-json.ts";

const timeoutMs = 60_000;

/** Of a whole answer, however slowly it comes: well above what a node under load takes. */
const longestMs = 300_000;

/** GET, or POST if there is a body. Throws `Refused` where the answer is not one of success. */
export type Ask = (path: string, more?: { headers?: Record<string, string>; body?: string }) => Promise<string>;

export class Refused extends Error {
  readonly code: number | undefined;
  constructor(code: number | undefined, text: string) {
    super(`the API server answered ${code}: ${messageOf(text)}`);
    this.code = code;
  }
}

/** With the kubeconfig's identity. The library's own client parses what it thinks is JSON; a bundle stays text. */
export async function asker(kubeconfig: KubeConfig): Promise<Ask> {
  const server = (kubeconfig.getCurrentCluster()?.server ?? "").replace(/\/$/, "");
  return async (path, { headers, body } = {}) => {
    const url = new URL(server + path);
    const options: RequestOptions = {
      method: body === undefined ? "GET" : "POST",
      headers: { accept: "application/json", ...(body && { "content-type": "application/json" }), ...headers },
      timeout: timeoutMs,
    };
    await kubeconfig.applyToHTTPSOptions(options);
    const request = url.protocol === "http:" ? httpRequest : httpsRequest;
    return new Promise<string>((resolve, reject) => {
      const sent = request(url, options, (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          size += chunk.length;
          // A node that goes wrong must not take the job with it.
          if (size > longestBundle) response.destroy(new Error(`the answer is longer than ${longestBundle >> 20} MiB`));
        });
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          const { statusCode = 0 } = response;
          if (statusCode >= 200 && statusCode < 300) resolve(text);
          else reject(new Refused(statusCode, text));
        });
      });
      sent.on("timeout", () => sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
      sent.on("error", reject);
      const late = setTimeout(
        () => sent.destroy(new Error(`the answer was not there after ${longestMs / 1000} s`)),
        longestMs,
      );
      sent.once("close", () => clearTimeout(late));
      sent.end(body);
    });
  };
}

const statusSchema = fromJson.pipe(z.object({ message: z.string() }));

function messageOf(text: string): string {
  const { data } = statusSchema.safeParse(text);
  return data === undefined ? text.trim().slice(0, 200) : data.message.slice(0, 500);
}
