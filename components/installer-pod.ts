import type * as k8s from "@pulumi/kubernetes/types/input.js";
import type * as pulumi from "@pulumi/pulumi";
import { canonicalJson } from "../runtime/canonical.ts";
import { imagePullerKey } from "../runtime/guest-registry.ts";
import { healthPort, installerLabels, installerName, specKey, specVolume } from "../runtime/names.ts";
import type { InstallSpec } from "../runtime/spec.ts";
import { applied } from "./arguments.ts";
import { resourcesOf } from "./config/installer-pod-schema.ts";
import type { CheckedGroup } from "./group.ts";
import { podSecurity } from "./manifests/pod-security.ts";
import { snapshotterContainers, snapshotterVolumes } from "./snapshotters.ts";

/** Plain values give a plain template. */
export interface PodTemplateArgs
  extends Pick<
    CheckedGroup,
    "group" | "nodeSelector" | "nodeNames" | "tolerations" | "priorityClass" | "installerPod"
  > {
  image: pulumi.Input<string>;
  /** Name of the ConfigMap that holds the spec. */
  specName: string;
  spec: InstallSpec;
  /** Name of a Secret in the same namespace. */
  pullSecret?: pulumi.Input<string> | undefined;
  /** The same of the Secret with what guests are told about registries. */
  guestRegistry?: pulumi.Input<string> | undefined;
}

const specDirectory = "/etc/contrast";
const registryVolume = "guest-registry";
const registryDirectory = "/etc/contrast-guest-registry";

/** The pod that works on each node of a group. What it may do on the node, and why, is in pod-security.ts. */
export function podTemplate(args: PodTemplateArgs): k8s.core.v1.PodTemplateSpec {
  const { group, image, specName, tolerations, priorityClass, installerPod, pullSecret } = args;
  // Only where a guest reads it: pods of all others stay as they are.
  const guestRegistry = args.spec.runtimes.some(({ imagePuller }) => imagePuller) ? args.guestRegistry : undefined;
  return {
    metadata: applied(installerPod, ({ labels, annotations }) => ({
      labels: { ...labels, ...installerLabels(group) },
      ...(Object.keys(annotations).length > 0 && { annotations }),
    })),
    spec: {
      ...podSecurity.pod,
      serviceAccountName: installerName(group),
      automountServiceAccountToken: true,
      priorityClassName: priorityClass,
      nodeSelector: applied(args.nodeSelector, (labels) => ({
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        ...labels,
      })),
      ...(args.nodeNames && { affinity: applied(args.nodeNames, onlyNodes) }),
      tolerations: applied(tolerations, (given) => inOrder([...given, ...ofStartup(args.spec)])),
      ...(pullSecret && { imagePullSecrets: [{ name: pullSecret }] }),
      terminationGracePeriodSeconds: podSecurity.terminationGracePeriodSeconds,
      containers: [
        {
          name: "installer",
          image,
          args: [
            ...["watch", "--spec", `${specDirectory}/${specKey}`, "--host-root", "/host"],
            ...(guestRegistry === undefined ? [] : ["--guest-registry", `${registryDirectory}/${imagePullerKey}`]),
          ],
          env: [
            field("NODE_NAME", "spec.nodeName"),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
          ],
          ports: [{ name: "health", containerPort: healthPort, protocol: "TCP" }],
          // Not ready while it works, so that a DaemonSet's own numbers tell the truth. Alive as long as it answers: a
          // node that is slow is no reason to start over.
          readinessProbe: { httpGet: { path: "/readyz", port: "health" }, periodSeconds: 2, timeoutSeconds: 2 },
          livenessProbe: {
            httpGet: { path: "/healthz", port: "health" },
            initialDelaySeconds: 30,
            periodSeconds: 10,
            timeoutSeconds: 5,
            failureThreshold: 6,
          },
          // No memory limit of ours: page cache of copied payloads counts towards it, and a killed installer helps nobody.
          resources: applied(installerPod, resourcesOf),
          securityContext: podSecurity.container,
          volumeMounts: [
            ...podSecurity.volumeMounts,
            { name: specVolume, mountPath: specDirectory, readOnly: true },
            ...(guestRegistry === undefined
              ? []
              : [{ name: registryVolume, mountPath: registryDirectory, readOnly: true }]),
          ],
        },
        ...snapshotterContainers(args.spec, image),
      ],
      volumes: [
        ...podSecurity.volumes,
        { name: specVolume, configMap: { name: specName } },
        ...(guestRegistry === undefined ? [] : [{ name: registryVolume, secret: { secretName: guestRegistry } }]),
        ...snapshotterVolumes(args.spec),
      ],
    },
  };
}

/** It is this pod that the taint waits for. */
const ofStartup = ({ startupTaint }: InstallSpec) =>
  startupTaint === undefined ? [] : [{ key: startupTaint, operator: "Exists" }];

/** By the node's own name: anyone who may label nodes can move labels. Terms are alternatives, one name each. */
const onlyNodes = (names: string[]): k8s.core.v1.Affinity => ({
  nodeAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: names.toSorted().map((name) => ({
        matchFields: [{ key: "metadata.name", operator: "In", values: [name] }],
      })),
    },
  },
});

const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });

/** Sorted, because their order has no meaning and another one should not be a change. */
export const inOrder = <Toleration extends object>(tolerations: Toleration[]): Toleration[] =>
  tolerations.map(definedOnly).sort((a, b) => (canonicalJson(a) < canonicalJson(b) ? -1 : 1));

/** Without the keys whose value is `undefined`. */
export const definedOnly = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, part]) => part !== undefined)) as T;
