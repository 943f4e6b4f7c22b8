import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";
import { expect, test } from "vitest";
import { type Collected, collectBundles } from "../../../review/collect.ts";

const pod = (name: string) => ({
  metadata: { name, labels: { "app.kubernetes.io/name": "contrast-installer-workers" } },
  spec: { nodeName: `node-of-${name}` },
  status: { phase: "Running" },
});

test("a node whose answer does not end gives no bundle, and the others do", async () => {
  const server = createServer((request, response) => {
    if (request.url?.endsWith("/serviceaccounts/bundle-reader/token"))
      return response.end(JSON.stringify({ status: { token: "t" } }));
    if (request.url?.endsWith("/proxy/bundle") !== true)
      return response.end(JSON.stringify({ items: [pod("one"), pod("two")] }));
    if (request.url.includes("/two:")) return response.end("{}");
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(1 << 20)));
    };
    response.on("drain", more);
    return more();
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
    await collectBundles(kubeconfig, "contrast-runtime-system", async (one) => void collected.push(one));
    expect(collected.sort((a, b) => (a.node < b.node ? -1 : 1))).toEqual([
      { group: "workers", node: "node-of-one", problem: "the answer is longer than 8 MiB" },
      { group: "workers", node: "node-of-two", bundle: "{}" },
    ]);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
