import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/**
 * Engine and plugins have the versions of the SDK packages that the program imports: package.json pins those, and nothing
 * else is written down.
 */
export function sdkVersion(packageName: string): string {
  return readManifest(packageName).version;
}

/** The engine's version, which is the SDK's. Its Go module names it once more; a test compares the two. */
export const engineVersion = sdkVersion("@pulumi/pulumi");

/** Whatever came before has neither the plugin protocol nor the Node 24 support that the program is tested with. */
export const oldestEngineVersion = "3.248.0";

export const providers = ["kubernetes", "command", "azure-native"] as const;
export type Provider = (typeof providers)[number];

/** The plugin version that the provider's SDK asks the engine for. */
export function pluginVersion(provider: Provider): string {
  const { pulumi, version } = readManifest(`@pulumi/${provider}`);
  return (pulumi?.version ?? version).replace(/^v/, "");
}

function readManifest(packageName: string): { version: string; pulumi?: { version?: string } } {
  return JSON.parse(readFileSync(require.resolve(`${packageName}/package.json`), "utf8"));
}

/** Whether `version` is `oldest` or newer; both as `1.2.3`, with or without a leading v or a pre-release. */
export function isAtLeast(version: string, oldest: string): boolean {
  const [a, b] = [version, oldest].map((text) => text.replace(/^v/, "").split(/[.+-]/, 3).map(Number));
  for (let i = 0; i < 3; i++) {
    const difference = (a?.[i] ?? 0) - (b?.[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
