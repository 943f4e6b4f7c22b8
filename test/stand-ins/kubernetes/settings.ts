/** The provider's arguments as the SDK sends them: all of them strings, most of them JSON. */

import type { Checked, Diff } from "../plugin.ts";
import { equal, type Properties, revealed, unknown, type Value } from "../values.ts";
import { KubeConfig } from "./client.ts";

export interface Settings {
  kubeconfig?: string | undefined;
  context?: string | undefined;
  cluster?: string | undefined;
  namespace?: string | undefined;
  renderYamlToDirectory?: string | undefined;
  serverSideApply: boolean;
  patchForce: boolean;
  upsertExistingObjects: boolean;
  mutableConfigMaps: boolean;
  mutableSecrets: boolean;
  deleteUnreachable: boolean;
  skipUpdateUnreachable: boolean;
}

export function readSettings(variables: Record<string, string>): Settings {
  const flag = (name: string, otherwise = false) =>
    variables[name] === undefined ? otherwise : variables[name] === "true";
  return {
    kubeconfig: variables.kubeconfig || undefined,
    context: variables.context || undefined,
    cluster: variables.cluster || undefined,
    namespace: variables.namespace || undefined,
    renderYamlToDirectory: variables.renderYamlToDirectory || undefined,
    serverSideApply: flag("enableServerSideApply", true),
    patchForce: flag("enablePatchForce"),
    upsertExistingObjects: flag("upsertExistingObjects"),
    mutableConfigMaps: flag("enableConfigMapMutable"),
    mutableSecrets: flag("enableSecretMutable"),
    deleteUnreachable: flag("deleteUnreachable"),
    skipUpdateUnreachable: flag("skipUpdateUnreachable"),
  };
}

export function checkSettings(inputs: Properties): Checked {
  if (!inputs.renderYamlToDirectory) return { inputs };
  const failures = ["cluster", "context", "kubeconfig"]
    .filter((property) => inputs[property])
    .map((property) => ({ property, reason: `"${property}" arg is not compatible with "renderYamlToDirectory" arg` }));
  return { inputs, failures };
}

/**
 * Replacing the provider replaces everything in it. With a `clusterIdentifier`, only its change does that; without one,
 * another active cluster in the kubeconfig does, or one that is not known yet.
 */
export function diffSettings(oldSettings: Properties, newSettings: Properties): Diff {
  const [olds, news] = [revealed(oldSettings), revealed(newSettings)];
  const names = [...new Set([...Object.keys(olds), ...Object.keys(news)])].filter((name) => name !== "version");
  const changed = names.filter((name) => !equal(olds[name], news[name]));
  const replaces = (name: string): boolean => {
    if (name === "renderYamlToDirectory" || name === "clusterIdentifier") return true;
    if (news.clusterIdentifier !== undefined) return false;
    if (news.kubeconfig === unknown) return name === "kubeconfig";
    return !equal(activeCluster(olds), activeCluster(news));
  };
  return {
    changes: new Map(
      changed.map((name) => [
        name,
        {
          kind: olds[name] === undefined ? "add" : news[name] === undefined ? "delete" : "update",
          replace: replaces(name),
        },
      ]),
    ),
  };
}

/** Name and address of the cluster that the kubeconfig and the context select. */
function activeCluster({ kubeconfig, context, cluster }: Properties): Value {
  if (typeof kubeconfig !== "string") return null;
  try {
    const config = new KubeConfig();
    config.loadFromString(kubeconfig);
    const name = cluster ?? config.getContextObject(String(context ?? config.getCurrentContext()))?.cluster;
    const found = config.clusters.find((item) => item.name === name);
    return found ? { name: found.name, server: found.server, ca: found.caData ?? found.caFile ?? null } : null;
  } catch {
    return null;
  }
}
