import { platforms } from "../../node-installer/runtime/platforms.ts";
import type { PlatformName } from "../../node-installer/runtime/spec.ts";

/** A resource as a policy sees it, before it is made. */
export interface Resource {
  type: string;
  name: string;
  urn: string;
  /** Inputs. Reading a value that is not known yet throws, and the engine says so instead of a violation. */
  props: Record<string, unknown>;
}

export interface Rule {
  /** Kebab-case, stable: what a stack's policy configuration names. */
  name: string;
  description: string;
  /** One sentence for each violation. */
  check: (resource: Resource) => string[];
}

type Tree = Record<string, unknown>;
const tree = (value: unknown): Tree => (typeof value === "object" && value !== null ? (value as Tree) : {});
const items = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** Of a Pod, or of whatever holds a pod template: DaemonSet, Deployment, Job, CronJob, … */
function podSpecs(type: string, props: Tree): Tree[] {
  if (!type.startsWith("kubernetes:")) return [];
  const spec = tree(props.spec);
  const job = tree(tree(spec.jobTemplate).spec);
  return type.endsWith(":Pod") ? [spec] : [tree(tree(spec.template).spec), tree(tree(job.template).spec)];
}

const pinnedImages: Rule = {
  name: "pinned-images",
  description: "Every container's image is named by digest.",
  check: ({ type, props }) =>
    podSpecs(type, props)
      .flatMap((spec) => [...items(spec.initContainers), ...items(spec.containers)].map(tree))
      .filter(({ image }) => !/@sha256:[0-9a-f]{64}$/.test(String(image)))
      .map(
        ({ name, image }) =>
          `Container "${name}" runs the image "${image}", which may be another image tomorrow. Name it by digest: …@sha256:<64 hex digits>.`,
      ),
};

const sshTypes = new Set(["command:remote:Command", "command:remote:CopyFile", "command:remote:CopyToRemote"]);

const hostKeys: Rule = {
  name: "host-keys",
  description: "Every host that is reached by SSH is known by its key.",
  check: ({ type, props }) => {
    if (!sshTypes.has(type)) return [];
    const connection = tree(props.connection);
    const hops = connection.proxy === undefined ? [connection] : [connection, tree(connection.proxy)];
    return hops
      .filter(({ hostKey }) => typeof hostKey !== "string" || hostKey === "")
      .map(
        ({ host }) =>
          `The connection to "${host}" has no hostKey, so whoever answers is trusted with it. Set hostKey to the line of known_hosts.`,
      );
  },
};

/** `0.0.0.0/0`, `::/0`, and whatever else covers a part of the internet that no organization owns. */
const isWorld = (range: string): boolean => Number(/\/(\d+)\s*$/.exec(range)?.[1] ?? 32) < 8;

const privateApiServer: Rule = {
  name: "private-api-server",
  description: "No API server answers the whole internet.",
  check: ({ type, props }) => {
    if (!/^azure-native:containerservice(\/[^:]+)?:ManagedCluster$/.test(type)) return [];
    const profile = tree(props.apiServerAccessProfile);
    if (profile.enablePrivateCluster === true) return [];
    const ranges = items(profile.authorizedIPRanges);
    const open = ranges.filter((range) => isWorld(String(range)));
    if (ranges.length > 0 && open.length === 0) return [];
    return [
      `The API server answers ${open.length > 0 ? `the range ${open.join(", ")}` : "every address"}. ` +
        "Set apiServerAccessProfile.enablePrivateCluster, or authorizedIPRanges to those that need it.",
    ];
  },
};

/** `dev`, `dev-anna`, `dev.lab` */
const isDevelopment = (urn: string): boolean => /^urn:pulumi:dev([-._][^:]*)?::/.test(urn);

const secureRuntimes: Rule = {
  name: "secure-runtimes",
  description: "Runtimes without a TEE are in dev stacks only.",
  check: ({ type, urn, props }) => {
    if (isDevelopment(urn)) return [];
    const handlers =
      type === "kubernetes:node.k8s.io/v1:RuntimeClass"
        ? [String(props.handler)].filter((handler) => handler.startsWith("contrast-insecure-"))
        : type === "contrast-runtime:index:NodeInstaller"
          ? items(props.runtimes)
              .map(tree)
              .filter(({ platform }) => platforms[platform as PlatformName]?.insecure)
              .map(({ handler }) => String(handler))
          : [];
    return handlers.map(
      (handler) =>
        `The runtime ${handler} has no TEE: nothing in its pods is confidential. Use another platform, or a stack called dev or dev-….`,
    );
  },
};

export const rules: Rule[] = [pinnedImages, hostKeys, privateApiServer, secureRuntimes];
