import { exitCodes } from "../process/exit-codes.ts";

/** Where the cluster comes from, and the exit codes; `failed` is what 1 means. */
export const clusterHelp = (failed: string): string => `
The cluster: KUBECONFIG_CONTENT (the content of a kubeconfig), otherwise kubectl's own rules.
${exitCodeHelp({ ...clusterMeanings, failed })}`;

const meanings = { done: "done", failed: "refused or failed, as the message says", usage: "wrong usage" };
const clusterMeanings = { ...meanings, stalled: "stalled", unreachable: "no cluster or no installer" };

export const exitCodeHelp = (of: Partial<Record<keyof typeof exitCodes, string>> = clusterMeanings): string =>
  `Exit codes: ${Object.entries(exitCodes)
    .flatMap(([name, code]) => {
      const meaning = of[name as keyof typeof exitCodes];
      return meaning === undefined ? [] : [`${code} ${meaning}`];
    })
    .join(", ")}.`;
