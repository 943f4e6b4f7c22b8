import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { parseDocument } from "yaml";
import { readConfiguration, type StackConfiguration } from "../../components/config/read.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { namedText } from "./named-file.ts";
import { projectDirectory } from "./project.ts";

const prefix = "contrast-runtime:";

/** What a stack's file says, by key without the project's prefix. */
export async function readStackFile(file: string): Promise<Record<string, unknown>> {
  const content = await namedText("stack's file", file);
  const document = parseDocument(content);
  const [mistake] = document.errors;
  if (mistake) throw new Refusal("no-yaml", `${file} is no YAML: ${mistake.message.split("\n")[0]}`);
  const config: unknown = document.toJS()?.config;
  if (typeof config !== "object" || config === null)
    throw new Refusal("no-config", `${file} has no "config": expected a stack's file, such as Pulumi.prod.yaml.`);
  return Object.fromEntries(
    Object.entries(config)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]),
  );
}

export const stackNameOf = (file: string): string => basename(file).replace(/^Pulumi\.|\.yaml$/g, "");

/**
 * Checked and complete, as for a cluster that exists: where the cluster is, is not the business of whoever reads the file
 * without an engine. Files that it names are those of the project's directory.
 */
export const configurationOf = async (
  file: string,
  config: Record<string, unknown>,
  options: { secretKeys?: readonly string[]; plainSecretAdvice?: string } = {},
): Promise<StackConfiguration> =>
  await readConfiguration({
    stack: stackNameOf(file),
    // What Pulumi.yaml says for every stack.
    entries: {
      installerImage: "local",
      registry: "{}",
      ...Object.fromEntries(
        Object.entries(config).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
      ),
      cluster: JSON.stringify({ kind: "kubeconfig", name: "rendered" }),
    },
    secretKeys: [],
    ...options,
    readText: (path) => readFile(resolve(projectDirectory, path), "utf8"),
    imageDigest: () => {
      throw new Error("no image of this machine is asked for");
    },
  });
