import * as z from "zod";

/*
 * Kernel parameters that a runtime adds to those of its payload. All are measured. A later one of the same name wins, so
 * that what decides about the guest's root file system and first program is refused here.
 */

/** How the programs of an upstream guest reach the outside, as kernel parameters of Kata's agent. */
export const guestProxy = z.strictObject({
  https: z
    .string()
    .regex(/^https?:\/\/[A-Za-z0-9.:[\]-]+\/?$/, {
      error: "must be http://host:port or https://host:port, without a login: everybody can read it",
    })
    .describe("For requests by https, such as http://proxy.example.com:3128."),
  noProxy: z
    .string()
    .regex(/^[A-Za-z0-9.,:*/[\]_-]+$/, { error: "must be names, addresses or networks, separated by commas" })
    .optional()
    .describe("What is reached without it: names, addresses and networks, separated by commas."),
});
export type GuestProxy = z.output<typeof guestProxy>;

/** By name, with what they do; Kata's agent reads its own (src/agent/README.md). Of any other it is not known. */
const understood = new Set([
  ...[
    "agent.image_pull_timeout",
    "agent.hotplug_timeout",
    "agent.container_pipe_size",
    "agent.guest_components_rest_api",
  ],
  ...["agent.secure_image_storage_integrity", "cgroup_no_v1", "systemd.unified_cgroup_hierarchy", "swiotlb", "pci"],
  ...["transparent_hugepage", "nvrc.smi.srs"],
]);

/** Where else a parameter is set. */
const elsewhere: Record<string, string> = {
  "agent.https_proxy": "the runtime's setting guestProxy",
  "agent.no_proxy": "the runtime's setting guestProxy",
  "agent.launch_process_timeout": "kata.agent.launch_process_timeout",
  "agent.cdh_api_timeout": "kata.agent.cdh_api_timeout, of runtime-rs cdh_api_timeout_ms",
  "agent.log": "kata.agent.enable_debug",
  "agent.debug_console": "kata.agent.debug_console_enabled",
  "agent.trace": "kata.agent.enable_tracing",
};

/**
 * They decide what the guest boots, which the payload says and verity protects. With dashes, which to the kernel are the same
 * as underscores.
 */
const ofTheImage = new RegExp(
  `^(${[
    "root|rootflags|rootfstype|roothash|usr|usrhash|usrflags|usrfstype|init|rdinit|initrd|noinitrd|dm-mod|dm-verity|rd",
    "systemd\\.(verity[\\w-]*|unit|mask|volatile|run[\\w-]*|setenv|import-credentials|set-credential[\\w-]*)",
    "kata\\.extension|agent\\.config-file|nr-cpus",
  ].join("|")})(\\.|$)`,
);

const nameOf = (word: string): string => word.split("=", 1)[0] ?? "";

/** What is wrong with a parameter: words that go on after it. */
export function parameterProblem(word: string): string | undefined {
  if (!/^[!#-~]+$/.test(word) || !/^[A-Za-z]/.test(word))
    return "is no kernel parameter: expected names and values without quotes, separated by one blank each";
  const name = nameOf(word);
  if (ofTheImage.test(name.replaceAll("_", "-")))
    return `cannot be set: the payload decides what its guests boot, and ${name} would replace that. Lock it with other --kernel-params`;
  const place = Object.hasOwn(elsewhere, name) ? elsewhere[name] : undefined;
  return place === undefined ? undefined : `is not set here: ${place} is`;
}

/** Those of which nobody knows what they do to a guest, by the name under which they are acknowledged. */
export const weakeningParameters = (words: readonly string[]): string[] =>
  words
    .filter((word) => parameterProblem(word) === undefined && !understood.has(nameOf(word)))
    .map((word) => `hypervisor.kernel_params:${nameOf(word)}`);

/** What Kata's agent reads of a proxy. */
export const proxyParameters = ({ https, noProxy }: GuestProxy): string[] => [
  `agent.https_proxy=${https}`,
  ...(noProxy === undefined ? [] : [`agent.no_proxy=${noProxy}`]),
];
