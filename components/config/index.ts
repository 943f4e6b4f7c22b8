import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { Refusal } from "../../runtime/refusal.ts";
import { imageLayout, readImageIndex } from "./image-layout.ts";
import { readConfiguration, type StackConfiguration } from "./read.ts";

/** The configuration of the stack that the engine runs. Mistakes end the program with one message and no stack. */
export async function stackConfiguration(): Promise<StackConfiguration> {
  const prefix = `${pulumi.getProject()}:`;
  const own = (key: string) => key.startsWith(prefix);
  const bare = (key: string) => key.slice(prefix.length);
  const secretKeys: string[] = JSON.parse(process.env.PULUMI_CONFIG_SECRET_KEYS ?? "[]");
  try {
    return await readConfiguration({
      stack: pulumi.getStack(),
      entries: Object.fromEntries(
        Object.entries(pulumi.runtime.allConfig())
          .filter(([key]) => own(key))
          .map(([key, value]) => [bare(key), value]),
      ),
      secretKeys: secretKeys.filter(own).map(bare),
      // Absolute, so that an error says where the file was looked for.
      readText: (path) => readFile(resolve(path), "utf8"),
      imageDigest: async () => (await readImageIndex(imageLayout)).digest,
    });
  } catch (error) {
    throw error instanceof Refusal ? new pulumi.RunError(error.message) : error;
  }
}
