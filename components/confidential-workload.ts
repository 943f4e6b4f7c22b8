import type * as k8s from "@pulumi/kubernetes/types/input.js";
import * as pulumi from "@pulumi/pulumi";
import { idBlockAnnotations } from "../measure/id-block.ts";
import { valuesOf } from "../measure/launch-values.ts";
import { deriveRuntime } from "../measure/runtime.ts";
import { computesTardevRoots } from "../measure/tardev.ts";
import { type ReferenceTable, referenceTable } from "../measure/verifier-formats.ts";
import { hypervisorAnnotations } from "../runtime/annotations.ts";
import { confidentialWorkloadCard } from "../runtime/cards.ts";
import type { Manifest } from "../runtime/manifest.ts";
import { platforms } from "../runtime/platforms.ts";
import type { PlatformName } from "../runtime/spec.ts";
import type { Initdata } from "../workload/initdata.ts";
import { type LayerRoot, type PodTemplate, type PreparedWorkload, prepareWorkload } from "../workload/template.ts";
import { checkArguments, workloadRuntime } from "./arguments.ts";
import { withoutStack } from "./refusals.ts";

export interface ConfidentialWorkloadArgs {
  platform: PlatformName;
  /** The payload that the nodes have, as `ContrastRuntime` takes it. */
  manifest: Manifest;
  template: pulumi.Input<k8s.core.v1.PodTemplateSpec>;
  /** Policy and data files for the guest; on AKS only the policy. The host can read them. */
  initdata: pulumi.Input<Initdata>;
  /**
   * Initdata without "policy.rego" is refused unless this is true: then the policy in the guest's image decides, and the
   * one in upstream Kata's lets the host run programs in the containers. Nothing for AKS, where a policy is needed.
   */
  withoutPolicy?: boolean;
  /** For AKS: the layers of every image of the template, by its reference, as `contrast-runtime measure layers` prints them. */
  layers?: pulumi.Input<Record<string, LayerRoot[]>>;
}

/**
 * A pod template made ready for a runtime, and what a verifier will see of its pods: on the review card, and as outputs.
 * A template that does not fit the runtime is refused in the preview, with the paths of its fields.
 */
export class ConfidentialWorkload extends pulumi.ComponentResource {
  /** RuntimeClass and handler. */
  readonly handler: string;
  /** For a Deployment's `spec.template`, or wherever else pods come from. */
  readonly template: pulumi.Output<k8s.core.v1.PodTemplateSpec>;
  /** Digest of the initdata (on AKS: of the policy) and what the report shows of it; hex. */
  readonly initdata: pulumi.Output<PreparedWorkload["initdata"]>;
  /** SHA-256 of policy.rego, hex; undefined without a policy. */
  readonly policyDigest: pulumi.Output<string | undefined>;
  /** dm-verity root hashes of the images' layers by container; undefined where guests pull images. */
  readonly rootHashes: pulumi.Output<Record<string, string[]> | undefined>;
  /** The row of the reference values for the vCPUs that these limits add up to; undefined if the manifest has none. */
  readonly reference: pulumi.Output<ReferenceTable | undefined>;

  constructor(name: string, args: ConfidentialWorkloadArgs, opts?: pulumi.ComponentResourceOptions) {
    const { platform, manifest, withoutPolicy = false } = args;
    checkArguments(`ConfidentialWorkload ${name}`, workloadRuntime, { platform, manifest });
    const { handler, containerd } = withoutStack(() => deriveRuntime({ platform, manifest }));
    const { podAnnotations } = containerd;
    const { host, snapshotter } = platforms[platform];
    if (snapshotter !== undefined && !computesTardevRoots(manifest.kataVersion))
      throw new pulumi.RunError(
        `Payload ${manifest.name} has Kata ${manifest.kataVersion}, but how nodes compute the root hashes of layers is known only for 3.2.0.azl1 to 3.2.0.azl5.`,
      );
    const hasIdBlocks = podAnnotations.some((name) => name.startsWith(`${hypervisorAnnotations}snp_id_block`));
    // Annotated because Pulumi's inferred type, which lifts every property, says less.
    const prepared: pulumi.Output<PreparedWorkload> = pulumi
      .all([args.template, args.initdata, args.layers])
      .apply(([template, initdata, layers = {}]) =>
        withoutStack(() =>
          prepareWorkload(template as PodTemplate, {
            handler,
            initdata,
            podAnnotations,
            withoutPolicy,
            guestPull: host.guestPull,
            ...(snapshotter === undefined ? {} : { layers }),
            ...(hasIdBlocks && {
              annotationsFor: (vcpus: number) => idBlockAnnotations(valuesOf(platform, manifest, [vcpus])?.snp ?? []),
            }),
          }),
        ),
      );
    const card = {
      initdata: prepared.apply(({ initdata }) => initdata),
      policyDigest: prepared.apply(({ policyDigest }) => policyDigest),
      rootHashes: prepared.apply(({ rootHashes }) => rootHashes),
      reference: prepared.apply(({ vcpus }) => {
        const values = valuesOf(platform, manifest, [vcpus]);
        return values && referenceTable(values);
      }),
    };
    super(confidentialWorkloadCard.type, name, { handler, payload: manifest.name, ...card }, opts);
    this.handler = handler;
    this.template = prepared.apply(({ template }) => template as k8s.core.v1.PodTemplateSpec);
    this.initdata = card.initdata;
    this.policyDigest = card.policyDigest;
    this.rootHashes = card.rootHashes;
    this.reference = card.reference;
    this.registerOutputs({ handler, template: this.template, ...card });
  }
}
