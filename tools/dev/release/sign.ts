import { bundleToJSON } from "@sigstore/bundle";
import {
  CIContextProvider,
  DSSEBundleBuilder,
  FulcioSigner,
  type IdentityProvider,
  RekorWitness,
} from "@sigstore/sign";
import { attach } from "../../oci/layout.ts";
import { attachedTo } from "./build.ts";

/** The form in which cosign 3 and `gh attestation verify --bundle-from-oci` look for signatures beside an image. */
export const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json";
const statementType = "application/vnd.in-toto+json";

export interface Signing {
  /** Sigstore's own, unless a test has others. */
  fulcio?: string | undefined;
  rekor?: string | undefined;
  /** Who signs: by default the workflow that this runs in. */
  identity?: IdentityProvider | undefined;
}

/**
 * Signs the image's provenance, keyless: Sigstore's authority certifies who runs this (a workflow of a repository, at a tag),
 * its log shows it to everybody, and the bundle of both is attached to the image. The statement names the image by digest.
 *
 * @param builder the workflow, as SLSA's provenance names who built: "https://github.com/OWNER/NAME/.github/workflows/…@REF"
 */
export async function signImage(
  layout: string,
  builder: string,
  { fulcio, rekor, identity = new CIContextProvider("sigstore") }: Signing = {},
): Promise<void> {
  const statement = JSON.parse((await attachedTo(layout, statementType)).toString());
  statement.predicate.runDetails.builder.id = builder;
  const signer = new FulcioSigner({ identityProvider: identity, ...(fulcio && { fulcioBaseURL: fulcio }) });
  const witness = new RekorWitness(rekor ? { rekorBaseURL: rekor } : {});
  const bundles = new DSSEBundleBuilder({ signer, witnesses: [witness] });
  const bundle = await bundles.create({ type: statementType, data: Buffer.from(JSON.stringify(statement)) });
  await attach(layout, {
    artifactType: bundleType,
    content: JSON.stringify(bundleToJSON(bundle)),
    annotations: {
      "dev.sigstore.bundle.content": "dsse-envelope",
      "dev.sigstore.bundle.predicateType": statement.predicateType,
    },
  });
}
