// Runs in the outer machine: a pod's sandbox, as a kubelet would start and end it. pod.mjs run HANDLER NAME | stop NAME
import { randomUUID } from "node:crypto";
import { openCri } from "../../../node-installer/containerd/cri.ts";

const [verb, ...words] = process.argv.slice(2);
const cri = openCri("/run/containerd/containerd.sock");
const startMs = 400_000;

if (verb === "run") {
  const [handler = "", name = ""] = words;
  const config = {
    metadata: { name, uid: randomUUID(), namespace: "default", attempt: 0 },
    hostname: name,
    dnsConfig: { options: ["ndots:1"] },
    labels: {},
    linux: { cgroupParent: `/${name}` },
  };
  console.log(await cri.runSandbox(config, handler, startMs));
} else {
  const [name] = words;
  for (const { id, metadata } of await cri.listSandboxes(startMs)) {
    if (metadata.name !== name) continue;
    await cri.stopSandbox(id, startMs);
    await cri.removeSandbox(id, startMs);
  }
}
