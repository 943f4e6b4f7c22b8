import { readFileSync } from "node:fs";
import type { PolicyImage, PolicyInput } from "../../../workload/policy/pod-policy.ts";
import { configMaps, exampleObjects, namespace, secrets, serverImage } from "../../fixtures/policy/objects.ts";
import type { Captured } from "./captured.ts";
import { vfioFile } from "./gpus.ts";
import type { RuntimeFlavour } from "./kata-requests.ts";

const fixture = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../fixtures/policy/${name}.json`, import.meta.url), "utf8"));

const references: { busybox: string; server: string } = fixture("images");
const digestOf = (reference: string) => reference.slice(reference.indexOf("@") + 1);

const images: Record<string, PolicyImage> = {
  [references.busybox]: {
    digest: digestOf(references.busybox),
    config: { Env: ["PATH=/bin:/usr/bin"], Cmd: ["/bin/sh"] },
  },
  [references.server]: {
    digest: digestOf(references.server),
    config: {
      Env: serverImage.env,
      Entrypoint: serverImage.entrypoint,
      Cmd: serverImage.command,
      User: serverImage.user,
    },
  },
};

export interface Example {
  captured: Captured;
  input: PolicyInput;
}

const versions: Record<RuntimeFlavour, string> = { "kata-go": "4.1.0", "kata-rs": "4.1.0", "contrast-go": "4.0.0" };

/** The example pods: what containerd made of them, and what their policies are made from. */
export function examples(flavour: RuntimeFlavour): Record<"web" | "db" | "batch" | "model", Example> {
  const { web, db, batch } = exampleObjects(references);
  const common = {
    runtime: { platform: "metal-qemu-snp" as const, flavour, kataVersion: versions[flavour], guestPull: true },
    namespace,
    images,
    configMaps,
    secrets,
  };
  const captured = { web: fixture("web"), db: fixture("db"), batch: fixture("batch"), model: fixture("batch") };
  // What containerd adds for a block volume (device_linux.go), which the cluster that was captured does not have.
  captured.db.containers[1].spec.linux.devices = [
    { path: "/dev/data", type: "b", major: 7, minor: 3, fileMode: 0o660, uid: 0, gid: 0 },
  ];
  // The same of GPUs: `batch` with two of them in its first container.
  captured.model.containers[1].spec.linux.devices = [1, 3].map((minor) =>
    vfioFile(`/dev/vfio/devices/vfio${minor}`, minor),
  );
  const template = (object: { spec: { template: PolicyInput["template"] } }) => object.spec.template;
  return {
    web: {
      captured: captured.web,
      input: { ...common, owner: { kind: "Deployment", name: "web" }, template: template(web) },
    },
    db: {
      captured: captured.db,
      input: {
        ...common,
        owner: { kind: "StatefulSet", name: "db" },
        template: template(db),
        claims: { data: { volumeMode: "Block" } },
      },
    },
    batch: {
      captured: captured.batch,
      input: { ...common, owner: { kind: "Job", name: "batch" }, template: template(batch) },
    },
    model: {
      captured: captured.model,
      input: {
        ...common,
        runtime: { ...common.runtime, platform: "metal-qemu-snp-gpu" },
        owner: { kind: "Job", name: "batch" },
        template: withGpus(template(batch), "2"),
      },
    },
  };
}

/** The first container asks for GPUs. */
function withGpus({ spec, ...others }: PolicyInput["template"], count: string): PolicyInput["template"] {
  const [first, ...rest] = spec.containers;
  if (first === undefined) throw new Error("no container");
  const limits = { ...first.resources?.limits, "nvidia.com/pgpu": count };
  const asking = { ...first, resources: { limits, requests: limits } };
  return { ...others, spec: { ...spec, containers: [asking, ...rest] } };
}
