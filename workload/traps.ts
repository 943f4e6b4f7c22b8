import { deviceAnnotations } from "../runtime/annotations.ts";
import type { GuestSize } from "../runtime/kata-configuration.ts";
import { injections } from "./injectors.ts";
import type { Container, Metadata, PodTemplate, Volume } from "./pod-template.ts";
import type { Problem } from "./problems.ts";
import { amount, mebibyte } from "./sizing.ts";

/** What the traps know of a pod beside its template. */
export interface TrapView {
  template: PodTemplate;
  /** What the pod's namespace says, as far as it is known. */
  namespace: Metadata;
  /** The guest, with the pod's limits. */
  size: GuestSize;
  guest: GuestFacts;
  /** Whether there is a "policy.rego", and whether a guest without one starts at all. */
  policy: "given" | "absent" | "required";
  /** Guests log in to registries with what their key broker has. */
  hasRegistryLogins: boolean;
  /** Bytes of the images' layers as the registry has them (compressed), where that is known. */
  imageBytes?: number | undefined;
}

/** What guests of a runtime can and cannot do with a pod. */
export interface GuestFacts {
  /** The guest pulls the images, so pod pull secrets do not reach the program that needs them. */
  pullsImages: boolean;
  /** Where that program has its logins from. */
  registryLogins: "initdata" | "node";
  /** What an emptyDir is: a disk of its own, encrypted, or memory of the guest. */
  emptyDirs: "encrypted-disk" | "memory";
  /** Whether a file that kubelet renews in a projected volume reaches a guest that runs. */
  renewsProjected: boolean;
  /** What containerd hands to the shim. */
  podAnnotations: readonly string[];
  /** The most vCPUs that this Kata gives to a guest. */
  mostVcpus: number;
}

/** Something in a pod that does otherwise in a confidential VM than its author thinks. */
export interface Trap {
  /** What it is acknowledged by. */
  name: string;
  /** What it is, in a few words. */
  title: string;
  /** Whether somebody may want it all the same. */
  wanted: boolean;
  find: (view: TrapView) => Problem[];
}

/** Every trap: its name, when it is there, and in which words it is said. Nothing else judges a template's meaning. */
export const traps = [
  {
    name: "host-namespaces",
    title: "namespaces of the host",
    wanted: false,
    find: ({ template: { spec } }) =>
      (["hostNetwork", "hostPID", "hostIPC"] as const)
        .filter((field) => spec[field] === true)
        .map((field) => problem(`spec.${field}`, "is true, but a confidential VM shares nothing with its host")),
  },
  {
    name: "ephemeral-containers",
    title: "ephemeral containers",
    wanted: false,
    find: ({ template: { spec } }) =>
      (spec.ephemeralContainers ?? []).length === 0
        ? []
        : [
            problem(
              "spec.ephemeralContainers",
              "are added to running pods, whose policy does not have them (so does kubectl debug): remove them",
            ),
          ],
  },
  {
    name: "host-path",
    title: "hostPath volumes",
    wanted: true,
    find: (view) =>
      volumes(view, ({ hostPath }) => hostPath !== undefined).map(({ field, volume }) =>
        problem(
          `${field}.hostPath`,
          `is ${shown(volume.hostPath?.path)}: the guest gets a copy of whatever the host puts there, and writes nothing back`,
        ),
      ),
  },
  {
    name: "filesystem-claim",
    title: "claims that are mounted as file systems",
    wanted: true,
    find: (view) => {
      const { volumes = [] } = view.template.spec;
      const isClaim = (name: string): boolean => {
        const volume = volumes.find((each) => each.name === name);
        // Kubernetes takes a mount of no volume only for a StatefulSet's volumeClaimTemplates.
        return volume === undefined || volume.persistentVolumeClaim !== undefined || volume.ephemeral !== undefined;
      };
      return mounts(view).flatMap(({ field, mount: { name } }) =>
        isClaim(name)
          ? [
              problem(
                field,
                `mounts the claim ${shown(name)} as a file system: its files are copied into the guest when the container starts, and nothing is ever written back. Use volumeMode: Block and volumeDevices`,
              ),
            ]
          : [],
      );
    },
  },
  {
    name: "sub-path",
    title: "subPath of volumes",
    wanted: true,
    find: (view) =>
      mounts(view).flatMap(({ field, mount: { subPath, subPathExpr } }) => {
        const [key, value] = subPath === undefined ? ["subPathExpr", subPathExpr] : ["subPath", subPath];
        return value === undefined || value === ""
          ? []
          : [
              problem(
                `${field}.${key}`,
                `is ${shown(value)}, which Kata does not know: the container gets a copy, made when it starts, which it shares with no other and which changes never reach`,
              ),
            ];
      }),
  },
  {
    name: "renewed-token",
    title: "tokens that kubelet renews",
    wanted: true,
    find: (view) =>
      view.guest.renewsProjected
        ? []
        : volumes(view, ({ projected }) => projected !== undefined).flatMap(({ field, volume }) =>
            (volume.projected?.sources ?? []).flatMap((source, index) =>
              source.serviceAccountToken === undefined
                ? []
                : [
                    problem(
                      `${field}.projected.sources[${index}].serviceAccountToken`,
                      "is renewed on the node before it expires, but this runtime never hands the new one to a guest that runs",
                    ),
                  ],
            ),
          ),
  },
  {
    name: "small-empty-dir",
    title: "emptyDir volumes whose limit the disk's own metadata exceeds",
    wanted: true,
    find: (view) =>
      view.guest.emptyDirs !== "encrypted-disk"
        ? []
        : limitedEmptyDirs(view, ({ medium = "" }) => medium === "").flatMap(({ field, sizeLimit }) =>
            (amount(sizeLimit) ?? 0) >= 64 * mebibyte
              ? []
              : [
                  problem(
                    field,
                    `is ${sizeLimit}, but the volume is an encrypted disk as large as the node's own, whose metadata counts as well (tens of MiB): kubelet would evict the pod. Say at least 64Mi, or medium: Memory`,
                  ),
                ],
          ),
  },
  {
    name: "large-empty-dir",
    title: "emptyDir volumes that may outgrow the guest's memory",
    wanted: true,
    find: (view) =>
      limitedEmptyDirs(view, ({ medium = "" }) => medium === "Memory" || view.guest.emptyDirs === "memory").flatMap(
        ({ field, sizeLimit }) =>
          (amount(sizeLimit) ?? 0) <= view.size.memoryMiB * mebibyte
            ? []
            : [
                problem(
                  field,
                  `is ${sizeLimit}, but the volume is in the guest's memory, which has ${view.size.memoryMiB} MiB: raise the pod's memory limit`,
                ),
              ],
      ),
  },
  {
    name: "privileged",
    title: "privileged containers",
    wanted: true,
    find: (view) =>
      containers(view).flatMap(({ field, container }) =>
        container.securityContext?.privileged === true
          ? [
              problem(
                `${field}.securityContext.privileged`,
                "is true: nothing holds the container back from the guest, its keys and its other containers",
              ),
            ]
          : [],
      ),
  },
  {
    name: "exec",
    title: "programs that the host starts in containers",
    wanted: true,
    find: (view) =>
      containers(view).flatMap(({ field, container }) =>
        Object.entries({
          livenessProbe: container.livenessProbe,
          readinessProbe: container.readinessProbe,
          startupProbe: container.startupProbe,
          "lifecycle.postStart": container.lifecycle?.postStart,
          "lifecycle.preStop": container.lifecycle?.preStop,
        }).flatMap(([name, handler]) =>
          handler?.exec === undefined
            ? []
            : [
                problem(
                  `${field}.${name}.exec`,
                  `is a program that the host may then start in the container at any time, and whose output it reads. Use ${name.startsWith("lifecycle") ? "httpGet" : "httpGet, tcpSocket or grpc"}`,
                ),
              ],
        ),
      ),
  },
  {
    name: "injected-sidecar",
    title: "containers that are added when the pod is created",
    wanted: true,
    find: ({ template: { metadata = {} }, namespace }) =>
      injections(metadata, namespace).map(({ title, on, in: part, key, value }) =>
        problem(
          `${on === "pod" ? "" : "namespace."}metadata.${part}["${key}"]`,
          `is ${shown(value)}: ${title} would add containers to the pod, which its policy does not have. Leave the pod out, or add them to the template beforehand`,
        ),
      ),
  },
  {
    name: "pull-secret",
    title: "pull secrets that the guest does not see",
    wanted: true,
    find: ({ template: { spec }, guest, hasRegistryLogins }) =>
      !guest.pullsImages || (spec.imagePullSecrets ?? []).length === 0 || hasRegistryLogins
        ? []
        : [
            problem(
              "spec.imagePullSecrets",
              guest.registryLogins === "initdata"
                ? 'do not reach the guest, which pulls the images: name their key broker resource in the initdata\'s "cdh.toml"'
                : "do not reach the guest, which pulls the images with the logins of the stack's registry.guest.credentials",
            ),
          ],
  },
  {
    name: "no-device",
    title: "devices that the platform does not have",
    wanted: false,
    find: (view) =>
      view.guest.podAnnotations.some((pattern) => pattern.startsWith(deviceAnnotations))
        ? []
        : containers(view).flatMap(({ field, container: { resources = {} } }) =>
            Object.keys({ ...resources.requests, ...resources.limits })
              .filter((name) => name.startsWith("nvidia.com/"))
              .map((name) =>
                problem(
                  `${field}.resources.limits["${name}"]`,
                  "asks for a GPU, but the platform has none to give to its guests: use one of the -gpu platforms",
                ),
              ),
          ),
  },
  {
    name: "too-many-vcpus",
    title: "limits that no VM can have",
    wanted: false,
    find: ({ template: { spec }, size: { vcpus }, guest: { mostVcpus } }) =>
      vcpus <= mostVcpus
        ? []
        : [
            problem(
              spec.resources?.limits?.cpu === undefined ? "spec.containers" : "spec.resources.limits.cpu",
              `make a guest with ${vcpus} vCPUs, but Kata gives it ${mostVcpus} at most: lower the CPU limits`,
            ),
          ],
  },
  {
    name: "images-in-memory",
    title: "images that the guest has no room for",
    wanted: true,
    find: ({ guest, size: { memoryMiB }, imageBytes = 0 }) =>
      !guest.pullsImages || imageBytes <= memoryMiB * mebibyte
        ? []
        : [
            problem(
              "spec.containers",
              `have images of ${Math.ceil(imageBytes / mebibyte)} MiB, still compressed, but the guest keeps them in its memory, which has ${memoryMiB} MiB: raise the memory limits`,
            ),
          ],
  },
  {
    name: "no-policy",
    title: "guests without a policy",
    wanted: true,
    find: ({ policy }) =>
      policy !== "absent"
        ? []
        : [
            problem(
              "initdata.data",
              "has no \"policy.rego\": the one in the guest's image then decides, and upstream Kata's lets the host do anything, such as run programs in the containers. Add one",
            ),
          ],
  },
] as const satisfies readonly Trap[];

export type TrapName = (typeof traps)[number]["name"];
/** Those that may be wanted. */
export const acknowledgeable: readonly TrapName[] = traps.filter(({ wanted }) => wanted).map(({ name }) => name);

/** What the traps find, without what is acknowledged; and which acknowledgements there was something for. */
export function judge(view: TrapView, acknowledged: readonly string[]): { problems: Problem[]; used: TrapName[] } {
  const problems: Problem[] = [];
  const used: TrapName[] = [];
  for (const { name, wanted, find } of traps) {
    const found = find(view);
    if (found.length > 0 && wanted && acknowledged.includes(name)) used.push(name);
    else if (wanted)
      problems.push(
        ...found.map(({ field, message }) => problem(field, `${message}; or acknowledge "${name}" if that is wanted`)),
      );
    else problems.push(...found);
  }
  return { problems, used };
}

const problem = (field: string, message: string): Problem => ({ field, message });
const shown = (value: string | undefined): string => JSON.stringify(value ?? "");

const containers = ({ template: { spec } }: TrapView): { field: string; container: Container }[] =>
  (["initContainers", "containers"] as const).flatMap((list) =>
    (spec[list] ?? []).map((container, index) => ({ field: `spec.${list}[${index}]`, container })),
  );

const mounts = (view: TrapView) =>
  containers(view).flatMap(({ field, container }) =>
    (container.volumeMounts ?? []).map((mount, index) => ({ field: `${field}.volumeMounts[${index}]`, mount })),
  );

const volumes = ({ template: { spec } }: TrapView, which: (volume: Volume) => boolean) =>
  (spec.volumes ?? []).flatMap((volume, index) => (which(volume) ? [{ field: `spec.volumes[${index}]`, volume }] : []));

const limitedEmptyDirs = (view: TrapView, which: (volume: { medium?: string | undefined }) => boolean) =>
  volumes(view, ({ emptyDir }) => emptyDir !== undefined && which(emptyDir)).flatMap(({ field, volume }) => {
    const { sizeLimit } = volume.emptyDir ?? {};
    return sizeLimit === undefined ? [] : [{ field: `${field}.emptyDir.sizeLimit`, sizeLimit }];
  });
