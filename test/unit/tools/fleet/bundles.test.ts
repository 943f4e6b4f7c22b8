import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";
import { expect, test, vi } from "vitest";
import { fleetApi } from "../../../../tools/fleet/api.ts";
import { type Collected, collectBundles } from "../../../../tools/fleet/bundles.ts";

const pod = (name: string) => ({
  metadata: { name, labels: { "app.kubernetes.io/name": "contrast-installer-workers" } },
  spec: { nodeName: `node-of-${name}` },
  status: { phase: "Running" },
});

/** Answers as the API server does, with what each node's installer says by `answer`. */
async function collect(
  names: string[],
  answer: (node: string, response: ServerResponse) => void,
): Promise<Collected[]> {
  const server = createServer((request, response) => {
    const [, name] = /\/pods\/([^:]+):\d+\/proxy\/bundle$/.exec(request.url ?? "") ?? [];
    if (name !== undefined) return answer(name, response);
    const isToken = request.url?.endsWith("/serviceaccounts/bundle-reader/token");
    return response.end(JSON.stringify(isToken ? { status: { token: "t" } } : { items: names.map(pod) }));
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    const kubeconfig = new KubeConfig();
    const { port } = server.address() as AddressInfo;
    kubeconfig.loadFromClusterAndUser(
      { name: "c", server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
      { name: "u" },
    );
    const collected: Collected[] = [];
    await collectBundles(
      await fleetApi(kubeconfig),
      "contrast-runtime-system",
      async (one) => void collected.push(one),
    );
    return collected.sort((a, b) => (a.node < b.node ? -1 : 1));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("a node whose answer does not end gives no bundle, and the others do", async () => {
  const collected = await collect(["one", "two"], (node, response) => {
    if (node === "two") return response.end("{}");
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(1 << 20)));
    };
    response.on("drain", more);
    return more();
  });
  expect(collected).toEqual([
    { group: "workers", node: "node-of-one", problem: "the answer is longer than 8 MiB" },
    { group: "workers", node: "node-of-two", bundle: "{}" },
  ]);
});

test.each([
  ["as its own text", "\u001b[2K\u001b[32mnode-1: fine\r\nall \u202efine\u009b2J"],
  ["as a message", JSON.stringify({ message: "\u001b[2K\u001b[32mnode-1: fine\r\nall \u202efine\u009b2J" })],
])("a node's refusal, %s, says nothing to the terminal", async (_, text) => {
  const [one] = await collect(["one"], (_node, response) => void response.writeHead(500).end(text));
  expect(one?.problem).toBe("the API server answered 500: node-1: fine all fine");
});

test("a node whose answer comes byte by byte does not keep the others' bundles", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const [one] = await collect(["one"], (_node, response) => {
      response.write("{");
      vi.advanceTimersByTime(300_000);
    });
    expect(one?.problem).toBe("the answer was not there after 300 s");
  } finally {
    vi.useRealTimers();
  }
});
