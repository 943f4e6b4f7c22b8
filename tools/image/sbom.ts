import { sha256 } from "../../runtime/canonical.ts";
import { ownKey } from "../../runtime/names.ts";
import type { Referrer } from "../oci/layout.ts";
import { debianLicences } from "./base.ts";
import { type ImageParts, type NpmPackage, spdxTime } from "./parts.ts";

const imageName = "contrast-node-installer";

/**
 * The image's bill of materials and its provenance. Neither is signed: they say what the build did, and are worth as much
 * as the registry's access control. The same image from the same commit has the same ones.
 *
 * @param digest of the image's manifest, "sha256:…"
 */
export function referrersOf(digest: string, parts: ImageParts): Referrer[] {
  const unsigned = { [ownKey("signature")]: "none" };
  return [
    { artifactType: "application/spdx+json", content: JSON.stringify(bill(digest, parts)), annotations: unsigned },
    {
      artifactType: "application/vnd.in-toto+json",
      content: JSON.stringify(provenance(digest, parts)),
      annotations: { ...unsigned, "in-toto.io/predicate-type": "https://slsa.dev/provenance/v1" },
    },
  ];
}

const unknown = "NOASSERTION";

interface SpdxPackage {
  name: string;
  version: string;
  purpose: "APPLICATION" | "LIBRARY" | "CONTAINER" | "FILE" | "ARCHIVE";
  license?: string;
  checksums?: { algorithm: "SHA256" | "SHA512"; checksumValue: string }[];
  purl?: string;
  location?: string;
  sourceInfo?: string;
}

/** An SPDX 2.3 document (https://spdx.github.io/spdx-spec/v2.3/). */
function bill(digest: string, parts: ImageParts): unknown {
  const packages: unknown[] = [];
  const relationships: unknown[] = [];
  const add = (one: SpdxPackage, parent?: string): string => {
    const id = `SPDXRef-${packages.length}`;
    packages.push({
      SPDXID: id,
      name: one.name,
      versionInfo: one.version,
      downloadLocation: one.location ?? unknown,
      filesAnalyzed: false,
      licenseConcluded: unknown,
      licenseDeclared: spdxLicence(one.license),
      copyrightText: unknown,
      primaryPackagePurpose: one.purpose,
      ...(one.checksums ? { checksums: one.checksums } : {}),
      ...(one.sourceInfo ? { sourceInfo: one.sourceInfo } : {}),
      ...(one.purl
        ? {
            externalRefs: [{ referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: one.purl }],
          }
        : {}),
    });
    relationships.push(
      parent === undefined
        ? { spdxElementId: "SPDXRef-DOCUMENT", relationshipType: "DESCRIBES", relatedSpdxElement: id }
        : { spdxElementId: parent, relationshipType: "CONTAINS", relatedSpdxElement: id },
    );
    return id;
  };
  const hex = (value: string) => [{ algorithm: "SHA256" as const, checksumValue: value }];

  const image = add({
    name: imageName,
    version: digest,
    purpose: "CONTAINER",
    license: "Apache-2.0",
    checksums: hex(digest.slice("sha256:".length)),
  });
  const program = add(
    {
      name: "contrast-runtime",
      version: parts.version,
      purpose: "APPLICATION",
      license: "Apache-2.0",
      ...(parts.source
        ? { sourceInfo: `git commit ${parts.source.commit}${parts.source.changed ? ", with changed files" : ""}` }
        : {}),
    },
    image,
  );
  for (const one of parts.bundled) add(npm(one, "LIBRARY"), program);
  add(npm(parts.node, "APPLICATION"), image);
  const { suite, snapshot } = parts.debian;
  for (const { name, version, archive, path, sha256 } of parts.debian.packages)
    add(
      {
        name,
        version,
        purpose: "LIBRARY",
        checksums: hex(sha256),
        purl: debianPurl(name, version, suite),
        location: `https://snapshot.debian.org/archive/${archive}/${snapshot}/${path}`,
        ...(debianLicences[name] ? { license: debianLicences[name] } : {}),
      },
      image,
    );
  for (const { name, flavour, kataVersion, source, files } of parts.payloads) {
    const payload = add(
      {
        name,
        version: kataVersion,
        purpose: "ARCHIVE",
        sourceInfo: `${flavour}, Kata ${kataVersion}, from ${publicSource(source)}`,
      },
      image,
    );
    for (const { path, sha256 } of files)
      add({ name: path, version: kataVersion, purpose: "FILE", checksums: hex(sha256) }, payload);
  }
  const content = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: `${imageName}@${digest}`,
    creationInfo: { created: time(parts), creators: [`Tool: contrast-runtime-${parts.version}`] },
    packages,
    relationships,
  };
  // Other documents about the same image are other documents.
  return { ...content, documentNamespace: `urn:contrast-runtime:sbom:${sha256(JSON.stringify(content))}` };
}

/** An in-toto statement with SLSA's provenance (https://slsa.dev/spec/v1.0/provenance). */
function provenance(digest: string, parts: ImageParts): unknown {
  const { suite, packages } = parts.debian;
  return {
    _type: "https://in-toto.io/Statement/v1",
    subject: [{ name: imageName, digest: { sha256: digest.slice("sha256:".length) } }],
    predicateType: "https://slsa.dev/provenance/v1",
    predicate: {
      buildDefinition: {
        buildType: "urn:contrast-runtime:image:v1",
        externalParameters: { payloads: parts.payloads.map(({ name }) => name) },
        resolvedDependencies: [
          ...(parts.source
            ? [
                {
                  name: "contrast-runtime",
                  digest: { gitCommit: parts.source.commit },
                  annotations: { changedFiles: parts.source.changed },
                },
              ]
            : []),
          ...[parts.node, ...parts.bundled].map((one) => ({
            uri: npmPurl(one),
            ...(sha512(one) ? { digest: { sha512: sha512(one) } } : {}),
          })),
          ...packages.map(({ name, version, sha256 }) => ({
            uri: debianPurl(name, version, suite),
            digest: { sha256 },
          })),
          ...parts.payloads.flatMap(({ name, source, files }) =>
            files.map(({ path, sha256 }) => ({
              name: `${name}/${path}`,
              digest: { sha256 },
              annotations: { source: publicSource(source) },
            })),
          ),
        ],
      },
      runDetails: {
        // Nobody vouches for it: whoever ran the build says so himself, and nothing is signed.
        builder: { id: "urn:contrast-runtime:unsigned-build", version: { "contrast-runtime": parts.version } },
      },
    },
  };
}

/** Where a payload's files came from; how somebody reaches his nodes and where he keeps files is not for the registry. */
const publicSource = ({ kind, reference }: ImageParts["payloads"][number]["source"]): string =>
  kind === "kata-release" || kind === "oci-image" ? `${kind} ${reference}` : kind;

/** Never the clock's: the time that the build was told, else the commit's. */
const time = ({ sourceDateEpoch, source }: ImageParts): string =>
  sourceDateEpoch === undefined ? (source?.time ?? spdxTime(0)) : spdxTime(sourceDateEpoch);

const npm = (one: NpmPackage, purpose: SpdxPackage["purpose"]): SpdxPackage => ({
  name: one.name,
  version: one.version,
  purpose,
  purl: npmPurl(one),
  ...(one.license ? { license: one.license } : {}),
  ...checksums(sha512(one)),
});

const checksums = (sha512: string | undefined): Pick<SpdxPackage, "checksums"> =>
  sha512 === undefined ? {} : { checksums: [{ algorithm: "SHA512", checksumValue: sha512 }] };

/** https://github.com/package-url/purl-spec */
const npmPurl = ({ name, version }: NpmPackage): string => `pkg:npm/${name.replace("@", "%40")}@${version}`;
const debianPurl = (name: string, version: string, suite: string): string =>
  `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=amd64&distro=${suite}`;

/** Hex, of the package's archive. */
function sha512({ integrity = "" }: NpmPackage): string | undefined {
  const [, base64] = /^sha512-(\S+)$/.exec(integrity) ?? [];
  return base64 && Buffer.from(base64, "base64").toString("hex");
}

/** npm lets authors write anything: only what looks like an SPDX expression is repeated. */
const spdxLicence = (license = ""): string =>
  /^\(?[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*\)?$/.test(license) && license !== "UNLICENSED"
    ? license
    : unknown;
