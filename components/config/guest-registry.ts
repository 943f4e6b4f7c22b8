import { readsRegistryInInitdata, readsRegistryOnNode } from "../../runtime/derive.ts";
import { type GuestRegistry, imagePullerConfiguration, problemsForContrast } from "../../runtime/guest-registry.ts";
import type { Manifest } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import type { Mistake } from "./mistakes.ts";

/** What is said to guests that none of these runtimes has, or in a way that theirs do not understand. */
export function registryMistakes(
  registry: GuestRegistry,
  runtimes: readonly { platform: PlatformName; manifest: Manifest }[],
  key: string,
): Mistake[] {
  const [contrast, upstream] = [runtimes.some(readsRegistryOnNode), runtimes.some(readsRegistryInInitdata)];
  if (runtimes.length > 0 && !contrast && !upstream)
    return [{ key, message: "reaches no guest: no runtime here has guests that pull images themselves. Remove it." }];
  const wrong = contrast && !upstream ? problemsForContrast(registry) : portsOnly(contrast, registry);
  return [
    ...Object.entries(wrong).map(([path, message]) => ({ key: `${key}.${path}`, message: `${message}.` })),
    ...(upstream && !contrast && registry.credentials !== undefined
      ? [
          {
            key: `${key}.credentials`,
            message:
              "[secret] reaches Contrast's guests only, and no runtime here has those. Upstream's read initdata, which the host can read: put the file into their key broker and set credentialsUri.",
          },
        ]
      : []),
    ...(contrast ? loginMistakes(registry, key) : []),
  ];
}

/** With both kinds of guest, each takes the logins that are for it. */
const portsOnly = (contrast: boolean, { credentialsUri, ...rest }: GuestRegistry): Record<string, string> =>
  contrast ? problemsForContrast(rest) : {};

/** Once it is known; a program may give it later. */
function loginMistakes(registry: GuestRegistry, key: string): Mistake[] {
  if (typeof registry.credentials !== "string") return [];
  try {
    imagePullerConfiguration(registry);
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return [{ key: `${key}.credentials`, message: `[secret] cannot be used: ${error.message}` }];
  }
}
