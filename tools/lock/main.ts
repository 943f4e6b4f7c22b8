// npm run lock -- SOURCE …: fetches a payload, checks it, and writes its manifest.
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Assessment, advisoryName, assess, explainOpen } from "../../runtime/advisories.ts";
import { type FlavourName, flavourNames, supportedPair } from "../../runtime/flavours.ts";
import { type FileRole, fileRoles, guestImage, type Manifest, manifestSchema } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type PlatformName, platformNames } from "../../runtime/spec.ts";
import { readManifest } from "../files/manifest.ts";
import { projectDirectory } from "../files/project.ts";
import { fingerprint, publisherKey } from "../oci/cosign.ts";
import { fetchImage } from "../oci/image.ts";
import { type Progress, toStderr } from "../programs/progress.ts";
import { openArchives, openFiles } from "./archives.ts";
import { checkAttestation } from "./attestation.ts";
import { fetchKataRelease } from "./kata-release.ts";
import { type LockRequest, lockPayload } from "./lock.ts";
import { withNodeFiles } from "./node.ts";
import { refetch } from "./refetch.ts";

const usage = `Usage: npm run lock -- SOURCE --platform PLATFORM --kata-version VERSION [OPTIONS]
       npm run lock -- fetch --manifest FILE

Sources
  kata-release   a release of Kata Containers, from GitHub
                   --mirror URL       directory that holds the release's assets instead
                   --sha256 HEX       digest of the asset, where none is known here
                   --attestation FILE its provenance, from "gh attestation download" (default: asked for at GitHub, or
                                      at the mirror as sha256:HEX.jsonl): refused unless Kata's workflow signed it
                   --trusted-root FILE  Sigstore's, from "gh attestation trusted-root" (default: fetched)
  oci-image      an image, such as Contrast's node installer
                   --image REFERENCE  registry/repository@sha256:…
                   --root PATH        directory in the image that is laid out like a runtime's (default: found)
                   --cosign-key FILE  the publisher's public key (PEM): refused unless it signed the image
  files          files of this machine
                   --from DIRECTORY   laid out like a runtime's directory
  from-node      files of a node that has them
                   --via COMMAND      runs a command there: "ssh root@node-1", "kubectl exec -n NS POD -- chroot /host"
                   --root PATH        directory on the node that is laid out like a runtime's

fetch takes the files of a manifest that is committed already, from where it was locked; the manifest stays as it is.

Options
  --platform             ${platformNames.filter((name) => name !== "local").join(", ")}
  --flavour              ${flavourNames.filter((name) => name !== "none").join(", ")} (default: kata-go for releases, contrast-go elsewhere)
  --name NAME            of the payload (default: from platform, flavour and version)
  --file ROLE=PATH       take this file of the source for a role (repeatable): ${fileRoles.join(", ")}
  --kata-config PATH     a Kata configuration of the source, for the guest's boot parameters
  --rootfs-type, --kernel-params, --kernel-verity-params
                         those parameters, where the source does not say them
  --command-line TEXT    the guest's whole kernel command line as it is measured, {vcpus} in the place of its number of vCPUs;
                         for Kata versions whose command line is not known here. Without it, values that cover it are not predicted
  --acknowledge ID       a known hole of this Kata that you put up with, by its GHSA or CVE id (repeatable); the stack's runtime
                         must say the same. Without it, a Kata with one that can be used here is not locked
  --output FILE          the manifest to commit (default: node-installer/payloads/NAME.json)
  --payloads DIRECTORY   where the files go (default: .local/payloads, from where the image is built)
  --ca FILE              certificate of the server's authority (PEM)

A download that broke off is continued by the same command.`;

const text = { type: "string" } as const;
const list = { type: "string", multiple: true } as const;
const options = {
  platform: text,
  flavour: text,
  "kata-version": text,
  name: text,
  mirror: text,
  sha256: text,
  attestation: text,
  "trusted-root": text,
  image: text,
  "cosign-key": text,
  root: text,
  from: text,
  via: text,
  manifest: text,
  file: list,
  "kata-config": text,
  "rootfs-type": text,
  "kernel-params": text,
  "kernel-verity-params": text,
  "command-line": text,
  acknowledge: list,
  output: text,
  payloads: text,
  ca: text,
} as const;
type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>["values"];

/** What is locked anew; `fetch` is none of them. */
const sources = ["kata-release", "oci-image", "files", "from-node"] as const;
type Source = (typeof sources)[number];

/** Options that only some sources take: whoever gives one elsewhere expects something that would not happen. */
const optionsOf: Record<Source, (keyof Values)[]> = {
  "kata-release": ["mirror", "sha256", "attestation", "trusted-root", "ca"],
  "oci-image": ["image", "root", "cosign-key", "ca"],
  files: ["from"],
  "from-node": ["via", "root"],
};

class UsageError extends Error {}

function oneOf<const Names extends readonly string[]>(
  what: string,
  value: string | undefined,
  names: Names,
): Names[number] {
  const found = names.find((name) => name === value);
  if (found !== undefined) return found;
  throw new UsageError(
    value === undefined
      ? `${what} is missing: one of ${names.join(", ")}.`
      : `${what} "${value}" is none of ${names.join(", ")}.`,
  );
}

function required(values: Values, option: keyof Values): string {
  const value = values[option];
  if (typeof value === "string" && value) return value;
  throw new UsageError(`--${option} is missing.`);
}

/** The part of the request that no source changes. */
function request(source: Source, values: Values): Omit<LockRequest, "layout" | "source"> {
  const platform: PlatformName = oneOf("--platform", values.platform, platformNames);
  const flavour: FlavourName = oneOf(
    "--flavour",
    values.flavour ?? (source === "kata-release" ? "kata-go" : "contrast-go"),
    flavourNames,
  );
  const kataVersion = required(values, "kata-version");
  const name = values.name ?? `${platform}-${flavour}-${kataVersion}`;
  const checked = manifestSchema.shape.name.safeParse(name);
  if (!checked.success)
    throw new UsageError(`--name "${name}": ${checked.error.issues.map(({ message }) => message).join(", ")}.`);
  const rootfsType = values["rootfs-type"];
  if (values["command-line"] !== undefined && platforms[platform].vmm !== "qemu")
    throw new UsageError(
      `--command-line is not for ${platform}: ${platforms[platform].vmm === "none" ? "it has no VM" : "its IGVM file holds the command line"}.`,
    );
  return {
    name,
    platform,
    flavour,
    kataVersion,
    named: (values.file ?? []).map(namedFile),
    kataConfiguration: values["kata-config"],
    guest: {
      rootfsType:
        rootfsType === undefined ? undefined : oneOf("--rootfs-type", rootfsType, guestImage.shape.rootfsType.options),
      kernelParams: values["kernel-params"],
      kernelVerityParams: values["kernel-verity-params"],
    },
    commandLine: values["command-line"],
    directory: join(values.payloads ?? join(projectDirectory, ".local", "payloads"), name),
    output: values.output ?? join(projectDirectory, "node-installer", "payloads", `${name}.json`),
  };
}

function namedFile(argument: string): { role: FileRole; path: string } {
  const [role, path] = argument.split(/=(.*)/s);
  if (!path) throw new UsageError(`--file "${argument}" must be ROLE=PATH.`);
  return { role: oneOf("--file's role", role, fileRoles), path };
}

/** Fetches and locks; returns the manifest, the one that was committed before, and where things were written. */
export async function lock(
  argv: string[],
  progress: Progress,
): Promise<{ manifest: Manifest; before: Manifest | undefined; output: string; directory: string; holes: string[] }> {
  const { values, positionals } = parseArgs({ args: argv, options, allowPositionals: true });
  if (positionals.length > 1) throw new UsageError(`"${positionals[1]}" was not expected.`);
  if (positionals[0] === "fetch") return await fetchCommitted(values, progress);
  const source = oneOf("The source", positionals[0], sources);
  const elsewhere = sources
    .flatMap((other) => optionsOf[other])
    .find((option) => values[option] !== undefined && !optionsOf[source].includes(option));
  if (elsewhere) throw new UsageError(`--${elsewhere} is not for ${source}.`);
  const common = request(source, values);
  const holes = acknowledgedHoles(common, values);
  // One that is no manifest, as after a merge that went wrong, is written anew.
  const before = await readManifest(common.output, "").catch(() => undefined);
  const manifest = await lockFrom(source, values, common, progress);
  return { manifest, before, output: common.output, directory: common.directory, holes };
}

/** What is known of this Kata and put up with, or cannot be used here: a line each. @throws Refusal for anything else */
function acknowledgedHoles(
  { platform, flavour, kataVersion, guest }: Omit<LockRequest, "layout" | "source">,
  { acknowledge = [] }: Values,
): string[] {
  supportedPair(platform, flavour, kataVersion);
  const manifest = { flavour, kataVersion, guest: { kernelParams: guest.kernelParams ?? "" } };
  const { open, acknowledged, closed, mistakes }: Assessment = assess({ platform, manifest }, acknowledge);
  const [mistake] = mistakes;
  if (mistake) throw new UsageError(`--acknowledge ${mistake.message}`);
  const words = (ids: string[]) => ids.map((id) => `--acknowledge ${id}`).join(" ");
  if (open.length > 0)
    throw new Refusal(
      "known-advisories",
      `Kata ${kataVersion} (${flavour}) has known holes and was not locked. ${explainOpen(open, (ids) => `${words(ids)} here, and acknowledgedAdvisories: [${ids.join(", ")}] at the stack's runtime`)}`,
    );
  return [
    ...acknowledged.map((hole) => `Known hole, acknowledged: ${advisoryName(hole)}. ${hole.allows} See ${hole.source}`),
    ...closed.map(({ advisory, why }) => `Known hole that cannot be used here: ${advisoryName(advisory)}: ${why}.`),
    ...(acknowledged.length === 0
      ? []
      : [`The stack's runtime says so, too: acknowledgedAdvisories: [${acknowledged.map(({ id }) => id).join(", ")}]`]),
  ];
}

async function fetchCommitted(values: Values, progress: Progress) {
  const other = Object.keys(values).find((option) => !["manifest", "payloads", "ca"].includes(option));
  if (other) throw new UsageError(`--${other} is not for fetch: the manifest says everything.`);
  const output = required(values, "manifest");
  const manifest = await readManifest(output, "Restore it, or lock the payload again.");
  const directory = join(values.payloads ?? join(projectDirectory, ".local", "payloads"), manifest.name);
  const ca = values.ca === undefined ? undefined : await readFile(values.ca, "utf8");
  await refetch(manifest, { directory, ca }, progress);
  return { manifest, before: manifest, output, directory, holes: [] };
}

async function lockFrom(
  source: Source,
  values: Values,
  common: Omit<LockRequest, "layout" | "source">,
  progress: Progress,
): Promise<Manifest> {
  const ca = values.ca === undefined ? undefined : await readFile(values.ca, "utf8");
  const configuration = common.kataConfiguration === undefined ? [] : [common.kataConfiguration];
  if (source === "kata-release") {
    const { kataVersion: version, flavour } = common;
    const { mirror, attestation: file, "trusted-root": trustedRoot } = values;
    const { archives, reference, sha256 } = await fetchKataRelease(
      { version, flavour, mirror, sha256: values.sha256, ca },
      progress,
    );
    const workflow = await checkAttestation({ sha256, version, mirror, file, trustedRoot, ca }, progress);
    const signature = workflow === undefined ? {} : { signature: `attested by ${workflow}` };
    const tree = await openArchives(archives, `Kata ${version}`, progress);
    return await lockPayload(
      { ...common, layout: "kata-release", source: { kind: "kata-release", reference, ...signature } },
      tree,
      progress,
    );
  }
  if (source === "oci-image") {
    const reference = required(values, "image");
    const keyFile = values["cosign-key"];
    const signer = keyFile === undefined ? undefined : publisherKey(await readFile(keyFile, "utf8"), keyFile);
    const tree = await openArchives(await fetchImage(reference, { ca, signer }, progress), reference, progress);
    const signature = signer ? { signature: `cosign key ${fingerprint(signer)}` } : {};
    const root = values.root ?? onlyRoot(tree.paths, reference);
    return await lockPayload(
      { ...common, layout: { root: withoutSlashes(root) }, source: { kind: "oci-image", reference, ...signature } },
      tree,
      progress,
    );
  }
  if (source === "files") {
    const { from } = values;
    const named = common.named.map(({ role, path }) => ({ role, path: resolve(path) }));
    const places = [...(from === undefined ? [] : [from]), ...named.map(({ path }) => path), ...configuration];
    if (places.length === 0) throw new UsageError("files needs --from DIRECTORY, or --file ROLE=PATH for each file.");
    const layout = from === undefined ? "named files only" : { root: withoutSlashes(resolve(from)) };
    // No path of this machine goes into the manifest: it is to be the same on another one.
    const reference = from === undefined ? "single files" : basename(resolve(from));
    return await lockPayload(
      {
        ...common,
        named,
        kataConfiguration: configuration[0] && resolve(configuration[0]),
        layout,
        source: { kind: "files", reference },
      },
      await openFiles(places),
      progress,
    );
  }
  const via = required(values, "via");
  const { root } = values;
  const outside = [...common.named.map(({ path }) => path), ...configuration];
  const paths = [
    ...(root === undefined ? [] : [root]),
    ...outside.filter((path) => root === undefined || !path.startsWith(`${root}/`)),
  ];
  if (paths.length === 0) throw new UsageError("from-node needs --root PATH, or --file ROLE=PATH for each file.");
  const layout = root === undefined ? "named files only" : { root: withoutSlashes(root) };
  const reference = `${via.trim()}:${paths.join(",")}`;
  return await withNodeFiles(
    via,
    paths,
    (tree) => lockPayload({ ...common, layout, source: { kind: "node", reference } }, tree, progress),
    progress,
  );
}

const withoutSlashes = (path: string) => path.replace(/^\/+|\/+$/g, "");

/** The directory in an image that has a shim where a runtime's directory has it. */
function onlyRoot(paths: string[], image: string): string {
  const roots = [
    ...new Set(
      paths
        .map((path) => /^(.*)\/bin\/containerd-shim-(?:contrast-cc|kata)-v2$/.exec(path)?.[1])
        .filter((root) => root !== undefined),
    ),
  ];
  const [root] = roots;
  if (root !== undefined && roots.length === 1) return root;
  throw new Refusal(
    "image-layout",
    roots.length === 0
      ? `${image} has no directory with a shim at bin/. Say where its files are: --root PATH, or --file ROLE=PATH.`
      : `${image} has several runtimes: ${roots.join(", ")}. Choose one with --root PATH.`,
  );
}

/** Whose word for the files was taken, and how somebody checks the publisher's signature where that was not done here. */
export function vouched({ source }: Manifest): string[] {
  const { kind, reference, signature } = source;
  if (signature !== undefined) return [`Signature: checked when it was locked (${signature})`];
  if (kind === "oci-image")
    return ["Signature: not checked. If the publisher signs with a cosign key, give it: --cosign-key FILE"];
  if (kind !== "kata-release") return [];
  // Only what no shell reads otherwise is put into a command: a manifest may be somebody else's.
  const archives = reference
    .split(" ")
    .map((asset) => asset.split("#sha256=")[0] ?? "")
    .filter((url) => /^https?:\/\/[A-Za-z0-9._~:/@%+-]+$/.test(url));
  return [
    "Signature: not checked; each archive has the SHA-256 that is known here or that you gave. Kata 3.28 to 4.1 attest what goes into their archives, not the archives; where a release does, this checks it:",
    ...archives.map((url) => {
      const file = url.slice(url.lastIndexOf("/") + 1);
      return `  curl -fLO '${url}' && gh attestation verify '${file}' --repo kata-containers/kata-containers`;
    }),
  ];
}

/** What the new manifest changes in the committed one, a line per file. */
function changes(before: Manifest | undefined, after: Manifest): string[] {
  if (!before) return [];
  const old = new Map(before.files.map((file) => [file.path, file.sha256]));
  const lines = after.files
    .filter(({ path, sha256 }) => old.get(path) !== sha256)
    .map(({ path }) => `  ${old.has(path) ? "changed" : "added  "} ${path}`);
  const removed = before.files.filter(({ path }) => !after.files.some((file) => file.path === path));
  return [...lines, ...removed.map(({ path }) => `  removed ${path}`)];
}

export async function main(argv: string[], progress: Progress = toStderr): Promise<number> {
  if (argv.includes("--help") || argv.length === 0) {
    console.log(usage);
    return argv.length === 0 ? 2 : 0;
  }
  try {
    const { output, directory, manifest, before, holes } = await lock(argv, progress);
    const size = manifest.files.reduce((sum, file) => sum + file.size, 0);
    console.log(`Locked ${manifest.name}: ${manifest.files.length} files, ${(size / 1e6).toFixed(0)} MB.`);
    for (const line of [...changes(before, manifest), ...holes, ...vouched(manifest)]) console.log(line);
    console.log(`Manifest: ${output} (commit it)\nFiles:    ${directory}`);
    return 0;
  } catch (error) {
    // Files that are not there have a syscall: their message says it all.
    const { code, syscall, message } = error as NodeJS.ErrnoException;
    const mistake = error instanceof UsageError || code?.startsWith("ERR_PARSE_ARGS");
    if (mistake) console.error(`${message}\nSee: npm run lock -- --help`);
    else console.error(error instanceof Refusal || syscall !== undefined ? message : error);
    return mistake ? 2 : 1;
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
