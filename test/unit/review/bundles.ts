import { takeSnapshot } from "../../../node-installer/commands/snapshot.ts";
import { converge } from "../../../node-installer/install/converge.ts";
import type { BundleText } from "../../../review/fleet-plan/plan.ts";
import type { InstallSpec, RuntimeSpec } from "../../../runtime/spec.ts";
import { adminsFile, MemoryNode } from "../../fakes/memory-node.ts";

/** A host that any of these runtimes runs on: what hosts lack is tested where hosts are checked. */
const anyHost: RuntimeSpec["host"] = { tee: "none", virtualization: "none", gpu: false, guestPull: false };

/** Runtimes as `MemoryNode` makes them, on any host. */
export function specOf(...digits: string[]): InstallSpec {
  const node = new MemoryNode();
  const spec = node.spec(digits.map((each) => ({ ...node.runtime(each), host: anyHost })));
  node.close();
  return spec;
}

export interface Kind {
  /** containerd's file. */
  file?: string;
  /** What is installed on the node, by the installer itself. */
  installed?: InstallSpec;
  /** Changes the node before the bundle is taken. */
  change?: (node: MemoryNode) => void;
}

/** The bundle that the installer's own snapshot takes of such a node. */
export async function bundleOf({ file = adminsFile, installed, change }: Kind, name = "node-1"): Promise<BundleText> {
  const node = new MemoryNode(file);
  node.host.put("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\ncpu MHz\t\t: 2394.4\n");
  try {
    const spec = installed ?? specOf("00000001");
    if (installed) {
      // The image's files, for this node.
      for (const { handler } of installed.runtimes) node.runtime(handler.slice(-8));
      await converge(node.environment(installed));
    }
    change?.(node);
    const bundle = await takeSnapshot(node.host, spec, name, (recording) => node.daemon(spec, recording));
    return { file: `${name}.json`, text: JSON.stringify(bundle, null, 1) };
  } finally {
    node.close();
  }
}

/** The same node again and again: another name, other times, inodes and processor frequencies. */
export function likeness({ text }: BundleText, number: number): BundleText {
  const name = `node-${number}`;
  const year = String(2_027 + number);
  const other = text
    .replace(/"node": "[^"]*"/, `"node": "${name}"`)
    .replaceAll(/20\d\d(-\d\d-\d\dT[\d:.]+Z|\d{4}T\d{6})/g, `${year}$1`)
    .replaceAll(/(cpu MHz\\t\\t: )[\d.]+/g, `$1${2_000 + number}.5`)
    .replaceAll(
      /((?:ino|mtimeNs|ctimeNs)\\*": ?\\*")(\d+)/g,
      (_, key: string, value: string) => `${key}${BigInt(value) * 7919n + BigInt(number)}`,
    );
  return { file: `${name}.json`, text: other };
}
