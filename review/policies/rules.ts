import { isChild, nodeInstallerCard } from "../../runtime/cards.ts";
import { platforms } from "../../runtime/platforms.ts";
import type { PlatformName } from "../../runtime/spec.ts";

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
  /** What a stack's policy configuration may say to it, as JSON schema properties. */
  configSchema?: { properties: Record<string, { type: "array"; items: { type: "string" } }> };
  /** One sentence for each violation. */
  check: (resource: Resource, config?: { stacks?: string[] }) => string[];
}

type Tree = Record<string, unknown>;
const tree = (value: unknown): Tree => (typeof value === "object" && value !== null ? (value as Tree) : {});
const items = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

const containerLists = ["initContainers", "containers", "ephemeralContainers"];

/** What makes a tree a pod's specification: a patch need not have containers. */
const podFields = [...containerLists, "volumes", "hostPID", "hostNetwork", "hostIPC"];

/** Pods, wherever they stand: in their templates, patches and lists of them. */
function podSpecs(value: unknown): Tree[] {
  const [here, children] = [tree(value), [] as unknown[]];
  for (const key of Object.keys(here)) {
    try {
      children.push(here[key]);
    } catch {
      // Only the update will know it, and is looked at then.
    }
  }
  const isSpec = podFields.some((field) => Object.hasOwn(here, field));
  return [...(isSpec ? [here] : []), ...children.flatMap(podSpecs)];
}

const containersOf = (spec: Tree): Tree[] =>
  containerLists
    .flatMap((list) => items(spec[list]))
    .filter((each) => typeof each === "object")
    .map(tree);

/** Patches, and resources of other providers, need not say it. */
const mayHaveNoImage = (type: string) => !type.startsWith("kubernetes:") || type.endsWith("Patch");

const pinnedImages: Rule = {
  name: "pinned-images",
  description: "Every container's image is named by digest.",
  check: ({ type, props }) => {
    const specs = podSpecs(props);
    const images = specs
      .flatMap(containersOf)
      .filter(({ image }) => image !== undefined || !mayHaveNoImage(type))
      .map(({ name, image }) => ({ what: `Container "${name}" runs the image`, image }));
    const volumes = specs
      .flatMap((spec) => items(spec.volumes).map(tree))
      .filter(({ image }) => image !== undefined)
      .map(({ name, image }) => ({ what: `Volume "${name}" is the image`, image: tree(image).reference }));
    return [...images, ...volumes]
      .filter(({ image }) => !/^\S+@sha256:[0-9a-f]{64}$/.test(String(image)))
      .map(
        ({ what, image }) =>
          `${what} "${image}", which may be another image tomorrow. Name it by digest: …@sha256:<64 hex digits>.`,
      );
  },
};

/** The pods that work on nodes, which is what the product is for. Their privileges are in pod-security.ts. */
const isOwnPods = ({ type, urn }: Resource): boolean =>
  type === "kubernetes:apps/v1:DaemonSet" && isChild(urn, nodeInstallerCard);

/** What containers may add without reaching their node: Kubernetes' Pod Security Standard "baseline". */
const baseline = new Set([
  ...["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"],
  ...["SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"],
]);

const confinedPods: Rule = {
  name: "confined-pods",
  description: "No pods but the installers' reach the node that they run on.",
  check: (resource) => {
    if (isOwnPods(resource)) return [];
    const { type, props } = resource;
    if (/^kubernetes:core\/v1:PersistentVolume(Patch|List)?$/.test(type)) {
      const volumes = type.endsWith("List") ? items(props.items).map(tree) : [props];
      return volumes
        .flatMap(({ spec }) => [tree(spec).hostPath, tree(spec).local].map((place) => tree(place).path))
        .filter((path) => path !== undefined)
        .map(
          (path) => `A volume is the node's directory ${path}, which makes whoever mounts it root there. Remove it.`,
        );
    }
    return podSpecs(props).flatMap((spec) => {
      const host = ["hostPID", "hostNetwork", "hostIPC"].filter((key) => spec[key] === true);
      const paths = items(spec.volumes).map((volume) => tree(tree(volume).hostPath).path);
      const privileged = containersOf(spec).filter(({ securityContext }) => tree(securityContext).privileged === true);
      const reasons = [
        ...host,
        ...paths.filter((path) => path !== undefined).map((path) => `the node's directory ${path}`),
        ...privileged.map(({ name }) => `privileged container "${name}"`),
        ...containersOf(spec).flatMap(({ name, securityContext }) =>
          items(tree(tree(securityContext).capabilities).add)
            .filter((capability) => !baseline.has(String(capability)))
            .map((capability) => `container "${name}" with the capability ${capability}`),
        ),
      ];
      return reasons.map((reason) => `A pod has ${reason}, which makes it root on its node. Remove it.`);
    });
  },
};

const opaqueTypes = /^kubernetes:helm\.sh\/[^:]+:Release$/;

const readableManifests: Rule = {
  name: "readable-manifests",
  description: "Nothing is deployed that policies cannot look into.",
  check: ({ type }) =>
    opaqueTypes.test(type)
      ? [
          "A Helm release is rendered by Helm while it is deployed, so neither this pack nor a preview can look into it. " +
            "Use kubernetes.helm.v4.Chart, whose objects are resources.",
        ]
      : [],
};

/** `curl … | sh`, `sh -c "$(curl …)"`, `bash <(wget …)`: by accident, that is; who wants to hide it can. */
const runsDownload =
  /\b(curl|wget)\b[^;&]*\|[\s\\]*(sudo\s+(-\S+\s+)*)?(\S*\/)?(env\s+)?((ba|da|k|z)?sh|python[\d.]*|perl|ruby|node|php)\b|[$<]\(\s*(curl|wget)\b|`\s*(curl|wget)\b/;

const checkedPrograms: Rule = {
  name: "checked-programs",
  description: "No command runs what it has just downloaded.",
  check: ({ type, props }) =>
    type.startsWith("command:")
      ? ["create", "update", "delete", "stdin"]
          .filter((verb) => runsDownload.test(String(props[verb] ?? "")))
          .map((verb) => `Its ${verb} runs what it downloads, whatever that is by then. Check a digest first.`)
      : [],
};

const hostKeys: Rule = {
  name: "host-keys",
  description: "Every host that is reached by SSH is known by its key.",
  check: ({ type, props }) => {
    if (!type.startsWith("command:remote:")) return [];
    const connection = tree(props.connection);
    const hops = connection.proxy === undefined ? [connection] : [connection, tree(connection.proxy)];
    return hops
      .filter(({ hostKey }) => typeof hostKey !== "string" || hostKey.trim() === "")
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

const stackOf = (urn: string): string => /^urn:pulumi:([^:]+)::/.exec(urn)?.[1] ?? "";

const secureRuntimes: Rule = {
  name: "secure-runtimes",
  description: "Runtimes without a TEE are in the stack dev only, and in those that the policy's configuration names.",
  configSchema: { properties: { stacks: { type: "array", items: { type: "string" } } } },
  check: ({ type, urn, props }, { stacks = [] } = {}) => {
    // By its whole name: "dev-production" begins like a stack for developing, too.
    if (["dev", ...stacks].includes(stackOf(urn))) return [];
    const handlers = /^kubernetes:node\.k8s\.io\/[^:]+:RuntimeClass(Patch|List)?$/.test(type)
      ? [props, ...items(props.items).map(tree)]
          .map(({ handler }) => String(handler))
          .filter((handler) => handler.startsWith("contrast-insecure-"))
      : type === nodeInstallerCard.type
        ? items(props.runtimes)
            .map((runtime) => runtimeSchema.safeParse(runtime).data ?? {})
            .filter(({ handler, platform }) => String(handler).startsWith("contrast-insecure-") || !isSecure(platform))
            .map(({ handler }) => String(handler))
        : [];
    return handlers.map(
      (handler) =>
        `The runtime ${handler} has no TEE, or settings that weaken its guests: nothing in its pods is confidential. Use another platform, the stack dev, or name ` +
        `the stack ${stackOf(urn)} in this policy's configuration ("secure-runtimes": {"stacks": […]}).`,
    );
  },
};

/** Of a card that this version cannot read, nothing is known to be secure. */
const runtimeSchema = nodeInstallerCard.schema.shape.runtimes.element.partial();

/** A platform that nobody here knows is none. */
const isSecure = (platform: unknown): boolean =>
  Object.hasOwn(platforms, String(platform)) && !platforms[platform as PlatformName].insecure;

export const rules: Rule[] = [
  ...[pinnedImages, confinedPods, readableManifests, checkedPrograms, hostKeys, privateApiServer, secureRuntimes],
];
