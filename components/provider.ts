import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { Refusal } from "../runtime/refusal.ts";
import { AksCocoNodePool } from "./aks-coco-node-pool.ts";
import { WrongArguments } from "./arguments.ts";
import { BareMetalNodes } from "./bare-metal-nodes.ts";
import { ConfidentialWorkload } from "./confidential-workload.ts";
import { ContrastRuntime } from "./contrast-runtime.ts";
import { LocalCluster } from "./local-cluster.ts";
import { NodeInstaller } from "./node-installer.ts";
import { runAsPlugin } from "./package-command.ts";
import { readManifest } from "./runtime.ts";
import { RuntimeClasses } from "./runtime-classes.ts";

/*
 * The components for programs in other languages: the engine starts this process, asks it for the package's schema, and has
 * it construct components.
 */

/** Arguments come from another process. Each constructor checks all of its own, so no type is claimed here. */
type Component = new (name: string, args: never, options: pulumi.ComponentResourceOptions) => pulumi.ComponentResource;

export const components: Record<string, Component> = {
  AksCocoNodePool,
  BareMetalNodes,
  ConfidentialWorkload,
  ContrastRuntime,
  LocalCluster,
  NodeInstaller,
  RuntimeClasses,
};

const require = createRequire(import.meta.url);
const packageJson = z.object({ version: z.string() });
const packageSchema = z.looseObject({
  resources: z.record(z.string(), z.looseObject({ properties: z.record(z.string(), z.unknown()) })),
});

/** The package `contrast-runtime` as the engine sees it. */
export class PackageProvider implements pulumi.provider.Provider {
  readonly version: string;
  readonly schema: string;
  readonly #outputs: Map<string, string[]>;

  constructor() {
    const read = (name: string): unknown =>
      JSON.parse(readFileSync(require.resolve(`contrast-runtime/${name}`), "utf8"));
    this.version = packageJson.parse(read("package.json")).version;
    const schema = packageSchema.parse(read("schema.json"));
    this.schema = JSON.stringify({ ...schema, version: this.version });
    this.#outputs = new Map(
      Object.entries(schema.resources).map(([token, { properties }]) => [token, Object.keys(properties)]),
    );
  }

  async construct(
    name: string,
    type: string,
    inputs: pulumi.Inputs,
    options: pulumi.ComponentResourceOptions,
  ): Promise<pulumi.provider.ConstructResult> {
    const Constructor = components[type.replace(/^.*:/, "")];
    const outputs = this.#outputs.get(type);
    if (Constructor === undefined || outputs === undefined)
      throw new Refusal(
        "no-component",
        `contrast-runtime ${this.version} has no component ${type}. It has: ${[...this.#outputs.keys()].join(", ")}.`,
      );
    const component = told(() => new Constructor(name, inputs as never, options));
    const values: Record<string, unknown> = { ...component };
    return { urn: component.urn, state: Object.fromEntries(outputs.map((output) => [output, values[output]])) };
  }

  /** The one function: YAML itself cannot read JSON. */
  async invoke(token: string, inputs: unknown): Promise<pulumi.provider.InvokeResult> {
    if (token !== "contrast-runtime:index:readManifest")
      throw new Refusal("no-function", `contrast-runtime ${this.version} has no function ${token}.`);
    const { data } = manifestPath.safeParse(inputs);
    if (data === undefined)
      return {
        outputs: {},
        failures: [{ property: "path", reason: "must be the path of a manifest, and nothing else." }],
      };
    try {
      return { outputs: { manifest: readManifest(data.path) } };
    } catch (error) {
      if (!(error instanceof WrongArguments)) throw error;
      const failures = (error.errors ?? []).map(({ propertyPath, reason }) => ({ property: propertyPath, reason }));
      return { outputs: {}, failures };
    }
  }
}

/** What `readManifest` is called with; the schema's. */
const manifestPath = z.strictObject({ path: z.string() });

/**
 * A user's mistake in the one form that the engine shows as it is. Without a list of properties, because it would print
 * their values, and the message names them all.
 */
function told<Result>(act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    const isMistake = pulumi.RunError.isInstance(error) || error instanceof Refusal;
    throw isMistake ? new pulumi.InputPropertiesError({ message: error.message, errors: [] }) : error;
  }
}

/** Serves the engine until it ends this process. */
export async function servePackage(words: string[]): Promise<void> {
  runAsPlugin();
  // Of a mistake that shows when an Input is known, the SDK would print the stack.
  const withoutStack = (error: unknown) => {
    if (pulumi.RunError.isInstance(error)) error.stack = error.message;
  };
  process.on("uncaughtException", withoutStack).on("unhandledRejection", withoutStack);
  await pulumi.provider.main(new PackageProvider(), words);
}
