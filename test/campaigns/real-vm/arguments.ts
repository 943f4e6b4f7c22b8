import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { type ContainerdVersion, containerdVersions } from "../../../runtime/containerd-versions.ts";
import { judgeSettings, type RuntimeSettings } from "../../../runtime/kata-overrides.ts";
import type { Manifest } from "../../../runtime/manifest.ts";
import type { RuntimeSpec } from "../../../runtime/spec.ts";
import { manifestOfPayload } from "../../../tools/lock/payload-directory.ts";

export interface Payload {
  directory: string;
  name: string;
  runtime: RuntimeSpec;
  /** What the stack sets beyond platform and payload. */
  settings: RuntimeSettings;
}

export const platform = "metal-qemu-insecure";

/** An emulated guest takes half a minute to start, and on a busy host many times that. */
const startSeconds = 900;
const patience = (flavour: Manifest["flavour"]) =>
  flavour === "kata-rs"
    ? { agent: { ...forAgents, reconnect_timeout_ms: 1000 * startSeconds, create_container_timeout: startSeconds } }
    : {
        agent: { ...forAgents, dial_timeout: startSeconds },
        runtime: { create_container_timeout: startSeconds },
      };
/** The agent powers the guest off if attestation-agent does not listen within this time. */
const forAgents = { launch_process_timeout: startSeconds };

function needs(what: boolean, sentence: string): asserts what {
  if (what) return;
  console.error(sentence);
  process.exit(2);
}

/** What the campaigns with real VMs are called with; ends the program where that does not do. */
export async function readArguments(): Promise<{
  payloads: [Payload, Payload?];
  containerd: ContainerdVersion;
  kvm: boolean;
}> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { kvm: { type: "boolean", default: false }, containerd: { type: "string", default: "1.7" } },
  });
  needs(process.getuid?.() === 0, "This campaign makes a Debian tree and a disk of it: run it as root.");
  const { kvm } = values;
  needs(!kvm || existsSync("/dev/kvm"), "--kvm needs /dev/kvm, which this machine lacks: leave it out.");
  const containerd = containerdVersions.find((version) => version === values.containerd);
  needs(containerd !== undefined, `--containerd ${values.containerd}: there are ${containerdVersions.join(", ")}.`);
  const payloads: Payload[] = [];
  for (const path of positionals) {
    const manifest = await manifestOfPayload(resolve(path));
    const settings = kvm ? {} : { kata: patience(manifest.flavour) };
    const { changes, mistakes } = judgeSettings({ platform, manifest }, settings);
    needs(mistakes.length === 0, JSON.stringify(mistakes));
    const runtime = deriveRuntime({ platform, manifest, changes });
    payloads.push({ directory: resolve(path), name: runtime.payload, runtime, settings });
  }
  const [first, second] = payloads;
  needs(
    first !== undefined && payloads.length <= 2,
    "Name one payload or two: directories that `contrast-runtime lock … --platform metal-qemu-insecure` made, with manifest.json.",
  );
  return { payloads: second === undefined ? [first] : [first, second], containerd, kvm };
}
