import { readFile } from "node:fs/promises";
import { Verb } from "../command.ts";
import { each, repository } from "../values.ts";

export const verb = () =>
  new Verb("image")
    .description(
      "Builds the installer's image as an OCI layout, without a container engine, and prints its digest; or pushes it, and prints its reference.",
    )
    .option("--payload <name>", "put this payload into the image (default: all that are on this machine)", each, [])
    .option(
      "--push <target>",
      "then push the image, such as ghcr.io/team/contrast-node-installer or http://10.0.0.1:5000/installer",
      repository,
    )
    .option("--ca <file>", "certificate of the registry's authority (PEM)")
    .option("--json", "one line of JSON: {digest, reference, payloads}")
    .action(async ({ json, ...options }) => {
      const image = await (await import("../../image/installer-image.ts")).makeImage(options);
      console.log(json ? JSON.stringify(image) : (image.reference ?? image.digest));
    })
    .addCommand(push());

/** By itself, because a cluster's registry may be reachable from the cluster's network namespace only. */
const push = () =>
  new Verb("push")
    .description("Pushes an image that was built, and prints its reference by digest.")
    .requiredOption("--layout <directory>", "the image's OCI layout")
    .requiredOption("--registry <url>", "such as https://ghcr.io or http://10.0.0.1:5000")
    .requiredOption("--repository <name>", "such as team/contrast-node-installer")
    .option("--ca <file>", "certificate of the registry's authority (PEM)")
    .option("--json", "one line of JSON: {reference}")
    .action(async ({ layout: layoutDir, registry, repository, ca: file, json }) => {
      const { pushImage } = await import("../../image/push.ts");
      const ca = file === undefined ? undefined : await readFile(file, "utf8");
      const reference = await pushImage({ layoutDir, registry, repository, ca });
      console.log(json ? JSON.stringify({ reference }) : reference);
    });
