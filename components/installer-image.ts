import { Command } from "@pulumi/command/local/command.js";
import * as pulumi from "@pulumi/pulumi";
import { imageLayout } from "./config/image-layout.ts";
import type { StackConfiguration } from "./config/read.ts";
import { commandInterpreter, packageCommand } from "./package-command.ts";

const repository = "contrast-node-installer";

/**
 * The reference under which nodes pull the installer. An image that was built here is pushed to the cluster's registry
 * before anything uses the reference.
 *
 * @param registry host:port of the local cluster's registry, plain HTTP
 */
export function installerImage(
  { reference, localDigest }: StackConfiguration["image"],
  registry: pulumi.Output<string> | undefined,
): pulumi.Input<string> {
  if (reference !== undefined) return reference;
  if (localDigest === undefined || registry === undefined)
    throw new Error("an image that was built here needs a local cluster");
  const push = new Command("installer-image", {
    create: registry.apply((host) =>
      packageCommand(
        "image push",
        ...["--layout", imageLayout, "--registry", `http://${host}`, "--repository", repository],
      ),
    ),
    interpreter: commandInterpreter(),
    // A different image is a different input, so it is pushed again.
    environment: { IMAGE_DIGEST: localDigest },
  });
  // Depends on the push, not on what it prints: that would be unknown in every preview of an update.
  return pulumi.all([registry, push.id]).apply(([host]) => `${host}/${repository}@${localDigest}`);
}
