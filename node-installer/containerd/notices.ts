import { distributions } from "../../runtime/distributions.ts";
import type { Located } from "./locate.ts";

/** What an administrator should know: where the stack is not followed, and what the node does not survive with our tables in it. */
export function noticesOf(located: Located): string[] {
  return [...ofConfigPath(located), ...ofUpgrade(located)];
}

function ofConfigPath({ file, notFollowed }: Located): string[] {
  if (notFollowed === undefined) return [];
  return [
    `distribution.configPath is ${notFollowed}, but what is installed stands in ${file}, which containerd reads as well, and stays there. Set configPath to ${file}; or, to move it, take the runtimes off this node (runtimes: [] for its group, or the node out of the group), and put them back.`,
  ];
}

function ofUpgrade({ distribution, configuration, file }: Located): string[] {
  const { edited } = distributions[distribution];
  if (edited.kind !== "drop-in" || configuration !== edited.merged) return [];
  return [
    `k0s up to 1.35 takes ${file} only in a form with which k0s 1.36 refuses to start. Before k0s is upgraded to 1.36 or later, take the runtimes off this node (runtimes: [] for its group, or the node out of the group), and put them back after it. If it is too late for that, delete ${file} on the node and start k0s: the installer then writes it in the new form.`,
  ];
}
