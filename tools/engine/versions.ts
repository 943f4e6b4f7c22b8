import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/**
 * Engine and plugins have the versions of the SDK packages that the program imports: package.json pins those, and no other
 * place lists a version.
 */
function sdkVersion(packageName: string): string {
  return packageJson(packageName).version;
}

/** The engine's version, which is the SDK's. Its Go module repeats the version; a test compares the two. */
export const engineVersion = sdkVersion("@pulumi/pulumi");

/** Earlier engines lack the plugin protocol or the Node 24 support that the program is tested with. */
export const oldestEngineVersion = "3.248.0";

export const providers = ["kubernetes", "command", "azure-native"] as const;
export type Provider = (typeof providers)[number];

/** The plugin version that the provider's SDK asks the engine for. */
export function pluginVersion(provider: Provider): string {
  const { pulumi, version } = packageJson(`@pulumi/${provider}`);
  return (pulumi?.version ?? version).replace(/^v/, "");
}

function packageJson(packageName: string): { version: string; pulumi?: { version?: string } } {
  return JSON.parse(readFileSync(require.resolve(`${packageName}/package.json`), "utf8"));
}
