import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { flavourNames } from "../../../runtime/flavours.ts";
import { type FileRole, fileRoles, guestImage } from "../../../runtime/manifest.ts";
import { platformNames } from "../../../runtime/spec.ts";
import type { Locked, LockOrder } from "../../lock/order.ts";
import { type Progress, toStderr } from "../../process/progress.ts";
import { Verb } from "../command.ts";
import { each, hexDigits, rtmr0 } from "../values.ts";

const orders = () => import("../../lock/order.ts");
const summaries = () => import("../../lock/summary.ts");

/** `done` is told what was locked, and whether JSON is asked for; by default it says so on standard output. */
export const verb = (
  progress: Progress = toStderr,
  done: (locked: Locked, json: boolean) => void | Promise<void> = say,
) => {
  const locks = async (order: LockOrder & { json?: true | undefined }) =>
    await done(await (await orders()).lock(order, progress), order.json === true);
  return new Verb("lock")
    .description(
      `Fetches a payload's files, checks them, and writes the manifest to commit. A download that broke off is continued by
the same command.`,
    )
    .addCommand(
      source("kata-release", "A release of Kata Containers, from GitHub.", "kata-go")
        .addOption(mirror())
        .option("--sha256 <hex>", "digest of the asset, where none is known here", (text) =>
          hexDigits(64)(text.replace(/^sha256:/, "")),
        )
        .option(
          "--attestation <file>",
          `its provenance, from "gh attestation download" (default: asked for at GitHub, or at the mirror as
sha256:HEX.jsonl): refused unless Kata's workflow signed it`,
        )
        .addOption(trustedRoot())
        .addOption(ca())
        .action((options) => locks({ source: "kata-release", ...options })),
    )
    .addCommand(
      source("oci-image", "An image, such as Contrast's node installer.", "contrast-go")
        .requiredOption("--image <reference>", "registry/repository@sha256:…")
        .option("--root <path>", "directory in the image that is laid out like a runtime's (default: found)")
        .option("--cosign-key <file>", "the publisher's public key (PEM): refused unless it signed the image")
        .addOption(ca())
        .action((options) => locks({ source: "oci-image", ...options })),
    )
    .addCommand(
      source("files", "Files of this machine.", "contrast-go")
        .option("--from <directory>", "laid out like a runtime's directory")
        .action((options) => locks({ source: "files", ...options })),
    )
    .addCommand(
      source("from-node", "Files of a node that has them.", "contrast-go")
        .requiredOption(
          "--via <command>",
          'runs a command there: "ssh root@node-1", "kubectl exec -n NS POD -- chroot /host"',
        )
        .option("--root <path>", "directory on the node that is laid out like a runtime's")
        .action((options) => locks({ source: "from-node", ...options })),
    )
    .addCommand(
      new Verb("missing")
        .description(
          `Locks what stack files name and nobody locked yet: releases of Kata, by manifests called PLATFORM-FLAVOUR-VERSION.json.
Known holes are put up with as the stack's runtimes say (acknowledgedAdvisories).`,
        )
        .argument("<files...>", "stack files, such as Pulumi.prod.yaml")
        .addOption(mirror())
        .addOption(trustedRoot())
        .addOption(ca())
        .addOption(payloads())
        .option("--json", `one line of JSON: a list with ${lockedJson} for each, [] when nothing is missing`)
        .action(async (files, { json: asJson, ...options }) => {
          const { lockMissing } = await import("../../lock/missing.ts");
          const all: Locked[] = [];
          await lockMissing(files, options, progress, async (locked) => {
            all.push(locked);
            if (!asJson) await done(locked, false);
          });
          if (asJson) console.log(JSON.stringify(all.map((await summaries()).summaryJson)));
          else if (all.length === 0) console.log("Nothing is missing that can be locked from here.");
        }),
    )
    .addCommand(
      new Verb("fetch")
        .description(
          "Takes the files of a manifest that is committed already, from where it was locked; the manifest stays as it is.",
        )
        .requiredOption("--manifest <file>", "the committed manifest")
        .addOption(mirror())
        .addOption(payloads())
        .addOption(ca())
        .addOption(json())
        .action(async (options) =>
          done(await (await orders()).fetchCommitted(options, progress), options.json === true),
        ),
    );
};

/** What is locked anew has these options in common. */
const source = (name: LockOrder["source"], description: string, flavour: (typeof flavourNames)[number]) =>
  new Verb(name)
    .description(description)
    .addOption(new Option("--platform <name>", "of the runtime").choices(platformNames).makeOptionMandatory())
    .requiredOption("--kata-version <version>", "such as 4.1.0")
    .addOption(new Option("--flavour <name>", "which Kata it is").choices(flavourNames).default(flavour))
    .option("--name <name>", "of the payload (default: from platform, flavour and version)")
    .option("--file <role=path>", `take this file of the source for a role: ${fileRoles.join(", ")}`, namedFile, [])
    .option(
      "--kata-config <path>",
      "a Kata configuration of the source, or the one (.json) of Contrast's installer, for the guest's boot parameters",
    )
    .addOption(
      new Option("--rootfs-type <type>", "where the source does not say it").choices(
        guestImage.shape.rootfsType.options,
      ),
    )
    .option("--kernel-params <text>", "where the source does not say them")
    .option("--kernel-verity-params <text>", "where the source does not say them")
    .option(
      "--command-line <text>",
      `the guest's whole kernel command line as it is measured, {vcpus} in the place of its number of vCPUs; for Kata
versions whose command line is not known here. Without it, values that cover it are not predicted`,
    )
    .option(
      "--rtmr0 <count=value>",
      `TDX: RTMR0 of a guest with so many vCPUs, from a guest that you trust. Where memory changes it, as
with upstream's firmware, give it to "measure manifest" for each workload instead`,
      rtmr0,
      [],
    )
    .option(
      "--acknowledge <id>",
      `a known hole of this Kata that you put up with, by its GHSA or CVE id; the stack's runtime must say the same.
Without it, a Kata with one that can be used here is not locked`,
      each,
      [],
    )
    .option("--output <file>", "the manifest to commit (default: payloads/NAME.json)")
    .addOption(payloads())
    .addOption(json());

const lockedJson = "{name, manifest, directory, files, bytes, signature, holes}";
const json = () => new Option("--json", `one line of JSON: ${lockedJson}`);
const payloads = () =>
  new Option("--payloads <directory>", "where the files go (default: .local/payloads, from where the image is built)");
const mirror = () =>
  new Option("--mirror <url>", "directory that holds the assets of Kata's release instead of GitHub");
const trustedRoot = () =>
  new Option("--trusted-root <file>", 'Sigstore\'s, from "gh attestation trusted-root" (default: fetched)');
const ca = () => new Option("--ca <file>", "certificate of the server's authority (PEM)");

function namedFile(text: string, before: { role: FileRole; path: string }[]): { role: FileRole; path: string }[] {
  const [name, path] = text.split(/=(.*)/s);
  if (!path) throw new InvalidArgumentError("It must be ROLE=PATH.");
  const role = fileRoles.find((known) => known === name);
  if (role === undefined) throw new InvalidArgumentError(`"${name}" is none of the roles ${fileRoles.join(", ")}.`);
  return [...before, { role, path }];
}

async function say(locked: Locked, json: boolean): Promise<void> {
  const { summaryJson, summaryLines } = await summaries();
  if (json) return console.log(JSON.stringify(summaryJson(locked)));
  for (const line of summaryLines(locked)) console.log(line);
}
