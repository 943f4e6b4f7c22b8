import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { valuesOf } from "../measure/launch-values.ts";
import { measuredRuntime } from "../measure/runtime.ts";
import { computesTardevRoots } from "../measure/tardev.ts";
import { type ReferenceTable, referenceTable } from "../measure/verifier-formats.ts";
import { confidentialWorkloadCard } from "../runtime/cards.ts";
import { judgeSettings } from "../runtime/kata-overrides.ts";
import { platforms } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import { distributionNames } from "../runtime/spec.ts";
import { initdataOf } from "../workload/earlier-output.ts";
import { type Problem, UnfitWorkload } from "../workload/problems.ts";
import { workloadOptions } from "../workload/runtime-options.ts";
import { type PreparedWorkload, prepareWorkload, type WorkloadOptions } from "../workload/template.ts";
import { acknowledgeable } from "../workload/traps.ts";
import { applied, checkArguments, input, type Shape, WrongArguments } from "./arguments.ts";
import { registryMistakes } from "./config/guest-registry.ts";
import type { Mistake } from "./config/mistakes.ts";
import { classNames, runtimeSettings } from "./config/runtime-schema.ts";
import { type GuestRegistryArgs, guestRegistryArgs, withoutLogins } from "./guest-registry.ts";
import { type GuestProxyArgs, payloadArgs } from "./runtime.ts";
import { type DistributionName, InitdataAlgorithm, type PlatformName } from "./words.ts";

/** Policy and data files for the guest. */
export interface InitdataArgs {
  /**
   * The digest's algorithm: sha256, sha384 or sha512.
   *
   * @example "sha256"
   */
  algorithm: InitdataAlgorithm;
  /**
   * Contents by file name: "policy.rego", "aa.toml", "cdh.toml".
   *
   * @example { "policy.rego": "package agent_policy…" }
   */
  data: Record<string, pulumi.Input<string>>;
}

/** A layer of a container image, as `contrast-runtime measure layers` prints it. */
export interface LayerArgs {
  /** "sha256:…" of the uncompressed layer, as the image's configuration has it. */
  diffId: string;
  /** dm-verity root hash, hex. */
  rootHash: string;
}

/** What a report shows of initdata (on AKS: of the policy). Hex. */
export interface InitdataDigest {
  /** Digest of what the guest is given. */
  digest: string;
  /** HOST_DATA of an SNP report. */
  hostData: string;
  /** MRCONFIGID of a TDX quote. */
  mrConfigId: string;
}

/** Arguments of `ConfidentialWorkload`. */
export interface ConfidentialWorkloadArgs {
  /** As in the node group: see `RuntimeArgs`. Plain, because the handler is derived from it. */
  platform: PlatformName;
  /**
   * The manifest of the payload that the nodes have, as `ContrastRuntime` takes it. Plain, because the handler is derived
   * from it.
   *
   * @example readManifest("payloads/kata-go/manifest.json")
   */
  manifest: pulumi.Inputs;
  /**
   * How the nodes run containerd, as in the node group. Only k0s and microk8s matter: their kubelet's directory is another
   * one, so that the handler is, too. Plain, because the handler is derived from it.
   *
   * @default any of the others
   * @example "k0s"
   */
  distribution?: DistributionName;
  /**
   * As in the node group.
   *
   * @default none
   */
  kata?: pulumi.Inputs | undefined;
  /**
   * As in the node group.
   *
   * @default false
   */
  debug?: boolean | undefined;
  /**
   * As in the node group.
   *
   * @default none
   */
  guestProxy?: GuestProxyArgs | undefined;
  /**
   * As in the node group.
   *
   * @default []
   */
  acknowledgedWeakenings?: string[] | undefined;
  /**
   * As in the node group: names that the template's `runtimeClassName` may have. It stays as it is.
   *
   * @default []
   */
  classNames?: string[] | undefined;
  /**
   * As `ContrastRuntime` has it. Upstream's guests get it in their initdata, which the host can read, so without logins; of
   * Contrast's it decides the handler only.
   *
   * @default none
   */
  guestRegistry?: GuestRegistryArgs | undefined;
  /**
   * A pod template, as in Kubernetes' PodTemplateSpec.
   *
   * @example { spec: { containers: [{ name: "web", image, resources: { limits: { cpu: "1", memory: "1Gi" } } }] } }
   */
  template: pulumi.Input<pulumi.Inputs>;
  /**
   * Policy and data files for the guest; on AKS only the policy. The host can read them.
   *
   * @default what the template's own annotation holds, such as one that `contrast-runtime workload` made
   */
  initdata?: pulumi.Input<InitdataArgs> | undefined;
  /**
   * Initdata without "policy.rego" is refused unless this is true: then the policy in the guest's image decides, and the
   * one in upstream Kata's lets the host run programs in the containers. Nothing for AKS, where a policy is needed.
   *
   * @default false
   */
  withoutPolicy?: boolean | undefined;
  /**
   * Traps of the template that are known and wanted all the same, by the names that their refusals say.
   *
   * @default []
   * @example ["exec", "sub-path"]
   */
  acknowledgedTraps?: string[] | undefined;
  /**
   * For AKS, and required there: the layers of every image of the template, by the image's reference, as
   * `contrast-runtime measure layers` prints them.
   *
   * @default none
   */
  layers?: pulumi.Input<Record<string, LayerArgs[]>> | undefined;
}

const confidentialWorkloadArgs = z.strictObject({
  platform: payloadArgs.platform,
  manifest: payloadArgs.manifest,
  distribution: z.enum(distributionNames).optional(),
  ...runtimeSettings,
  classNames,
  guestRegistry: guestRegistryArgs.optional(),
  // Checked when it is known, with the paths of its fields.
  template: z.custom((value) => typeof value === "object" && value !== null, { error: "must be a pod template" }),
  initdata: input(
    z.strictObject({
      algorithm: z.enum(Object.values(InitdataAlgorithm)),
      data: z.record(z.string(), input(z.string())),
    } satisfies Shape<InitdataArgs>),
  ).optional(),
  withoutPolicy: z.boolean().default(false),
  acknowledgedTraps: z.array(z.enum(acknowledgeable)).default([]),
  layers: input(
    z.record(
      z.string(),
      z.array(z.strictObject({ diffId: z.string(), rootHash: z.string() } satisfies Shape<LayerArgs>)),
    ),
  ).optional(),
} satisfies Shape<ConfidentialWorkloadArgs>);

/**
 * A pod template made ready for a runtime, and what a verifier will see of its pods: on the review card, and as outputs.
 * A template that does not fit the runtime is refused in the preview, with the paths of its fields.
 */
export class ConfidentialWorkload extends pulumi.ComponentResource {
  /** RuntimeClass and handler. */
  readonly handler: pulumi.Output<string>;
  /** For a Deployment's `spec.template`, or wherever else pods come from. */
  readonly template: pulumi.Output<pulumi.Inputs>;
  /** What a report shows of the initdata (on AKS: of the policy). */
  readonly initdata: pulumi.Output<InitdataDigest>;
  /** SHA-256 of policy.rego, hex; undefined without a policy. */
  readonly policyDigest: pulumi.Output<string | undefined>;
  /** dm-verity root hashes, hex, of the images' layers by container; undefined where guests pull images. */
  readonly rootHashes: pulumi.Output<Record<string, string[]> | undefined>;
  /** The row of the reference values for the vCPUs that these limits add up to; undefined if the manifest has none. */
  readonly reference: pulumi.Output<ReferenceTable | undefined>;

  constructor(name: string, args: ConfidentialWorkloadArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = checkArguments(`ConfidentialWorkload ${name}`, confidentialWorkloadArgs, args);
    const runtime = measured(`ConfidentialWorkload ${name}`, checked);
    const { manifest, spec } = runtime;
    // At once where everything is known, so that mistakes are those of arguments, before anything is registered.
    const ready = applied(
      [args.template, checked.initdata, checked.layers] as const,
      ([template, initdata, layers = {}]) =>
        prepare(
          `ConfidentialWorkload ${name}`,
          template,
          workloadOptions(runtime, {
            acknowledged: [...checked.acknowledgedTraps, ...(checked.withoutPolicy ? ["no-policy"] : [])],
            classNames: checked.classNames,
            distribution: checked.distribution,
            guestRegistry: withoutLogins(checked.guestRegistry),
            initdata: initdata ?? initdataOf(template) ?? { algorithm: "sha256", data: {} },
            layers,
          }),
        ),
    );
    // Pulumi's inferred type, which lifts every property, says less; and of a template, which may have any, something else.
    const prepared = pulumi.output(ready) as unknown as pulumi.Output<PreparedWorkload>;
    const card = {
      initdata: prepared.apply(({ initdata }) => initdata),
      policyDigest: prepared.apply(({ policyDigest }) => policyDigest),
      rootHashes: prepared.apply(({ rootHashes }) => rootHashes),
      reference: prepared.apply(({ size }) => {
        const values = valuesOf(runtime, [size.vcpus]);
        return values && referenceTable(values);
      }),
    };
    const { handler } = spec;
    const { type, build } = confidentialWorkloadCard;
    super(type, name, build({ handler, payload: manifest.name, ...card }), opts);
    this.handler = pulumi.output(handler);
    this.template = prepared.apply(({ template }) => template as pulumi.Inputs);
    this.initdata = card.initdata;
    this.policyDigest = card.policyDigest;
    this.rootHashes = card.rootHashes;
    this.reference = card.reference;
    this.registerOutputs({ handler, template: this.template, ...card });
  }
}

/** @throws WrongArguments where the payload cannot serve the platform */
function measured(component: string, given: z.output<typeof confidentialWorkloadArgs>) {
  const { platform, manifest, distribution } = given;
  const mistake = (message: string) => new WrongArguments(component, [{ key: "manifest", message }]);
  if (platforms[platform].snapshotter !== undefined && !computesTardevRoots(manifest.kataVersion))
    throw mistake(
      `payload ${manifest.name} has Kata ${manifest.kataVersion}, but how nodes compute the root hashes of layers is known only for 3.2.0.azl1 to 3.2.0.azl5.`,
    );
  const { changes, mistakes } = judgeSettings({ platform, manifest }, given);
  const wrong: Mistake[] = mistakes.map(({ path, message }) => ({ key: path, message }));
  // Logins are for the nodes to know.
  const registry = withoutLogins(given.guestRegistry);
  if (registry !== undefined) wrong.push(...registryMistakes(registry, [{ platform, manifest }], "guestRegistry"));
  if (wrong.length > 0) throw new WrongArguments(component, wrong);
  try {
    const guestRegistry = given.guestRegistry !== undefined;
    return measuredRuntime({ platform, manifest, distribution, changes, guestRegistry });
  } catch (error) {
    throw error instanceof Refusal ? mistake(`cannot be used: ${error.message}`) : error;
  }
}

/** @throws WrongArguments with the paths of the template's fields */
function prepare(component: string, template: unknown, options: WorkloadOptions): PreparedWorkload {
  try {
    const prepared = prepareWorkload(template, options);
    // A name that is there for nothing would hide the trap that comes later.
    const unused = (options.acknowledged ?? []).filter((name) => !prepared.acknowledged.some((used) => used === name));
    if (unused.length > 0) throw new WrongArguments(component, unused.map(unusedMistake));
    return prepared;
  } catch (error) {
    if (error instanceof UnfitWorkload) throw new WrongArguments(component, error.problems.map(argumentMistake));
    if (error instanceof Refusal)
      throw new WrongArguments(component, [
        { key: error.code === "initdata" ? "initdata" : "manifest", message: error.message },
      ]);
    throw error;
  }
}

const unusedMistake = (name: string): Mistake => ({
  key: name === "no-policy" ? "withoutPolicy" : "acknowledgedTraps",
  message:
    name === "no-policy"
      ? 'is true, but initdata.data has a "policy.rego": remove one of them.'
      : `has "${name}", but there is none in the template: remove it.`,
});

/** Fields of a pod template are below the argument of that name; all others are arguments. */
const argumentMistake = ({ field, message }: Problem): Mistake => ({
  key: /^(spec|metadata)\b/.test(field) ? `template.${field}` : field,
  message: `${message}.`,
});
