import { eventComponent, eventNamespace } from "./events.ts";
import { handlerLabelPrefix, installerName, statusAnnotation, ticketNames } from "./names.ts";
import { admissionPolicy } from "./policy.ts";

/**
 * The API server copies these from a pod's bound token (Kubernetes ≥ 1.30): the node that the pod runs on. A token
 * that is not bound to a pod has neither, and is refused everything below.
 */
const nodeClaim = {
  nodeName: "request.userInfo.extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')",
  nodeUid: "request.userInfo.extra[?'authentication.kubernetes.io/node-uid'][?0].orValue('')",
};
const claimed = {
  expression: "variables.nodeName != '' && variables.nodeUid != ''",
  message: "The token names no node: an installer's token has to be bound to its pod (Kubernetes 1.30 or newer).",
};

export interface IdentityOptions {
  namespace: string;
  group: string;
  atOnce: number;
}

/**
 * The rights of a group's installers, as manifests. RBAC alone cannot say "its own node" (every pod of the DaemonSet has
 * the same ServiceAccount), so admission policies narrow each right by the token's node claim. Nodes have no
 * `get`: admission does not see reads, but an empty patch reads the node and has to pass the policy.
 */
export function installerIdentity({ namespace, group, atOnce }: IdentityOptions) {
  const name = installerName(group);
  const subjects = [{ kind: "ServiceAccount", name, namespace }];
  const rbac = "rbac.authorization.k8s.io" as const;
  const apiVersion = `${rbac}/v1` as const;
  const user = `system:serviceaccount:${namespace}:${name}`;
  const policies = [nodePolicy(name, user, group), eventPolicy(name, user), ticketPolicy(name, user, group, atOnce)];
  return {
    serviceAccount: {
      apiVersion: "v1" as const,
      kind: "ServiceAccount" as const,
      metadata: { name, namespace },
      // The pod template asks for the token; nothing else that uses this account by accident gets one.
      automountServiceAccountToken: false,
    },
    clusterRole: {
      apiVersion,
      kind: "ClusterRole" as const,
      metadata: { name },
      rules: [
        { apiGroups: [""], resources: ["nodes"], verbs: ["patch"] },
        // Asks whose token it was given, and changes nothing: whoever holds a token can try it anyway.
        { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
      ],
    },
    clusterRoleBinding: {
      apiVersion,
      kind: "ClusterRoleBinding" as const,
      metadata: { name },
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name },
      subjects,
    },
    ticketRole: {
      apiVersion,
      kind: "Role" as const,
      metadata: { name, namespace },
      rules: [
        {
          apiGroups: ["coordination.k8s.io"],
          resources: ["leases"],
          verbs: ["get", "patch", "delete"],
          resourceNames: ticketNames(group, atOnce),
        },
        // RBAC cannot restrict creation by name; the policy does.
        { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"] },
      ],
    },
    ticketRoleBinding: {
      apiVersion,
      kind: "RoleBinding" as const,
      metadata: { name, namespace },
      roleRef: { apiGroup: rbac, kind: "Role", name },
      subjects,
    },
    eventRole: {
      apiVersion,
      kind: "Role" as const,
      metadata: { name, namespace: eventNamespace },
      rules: [{ apiGroups: [""], resources: ["events"], verbs: ["create", "patch"] }],
    },
    eventRoleBinding: {
      apiVersion,
      kind: "RoleBinding" as const,
      metadata: { name, namespace: eventNamespace },
      roleRef: { apiGroup: rbac, kind: "Role", name },
      subjects,
    },
    policies: policies.map(({ policy }) => policy),
    policyBindings: policies.map(({ binding }) => binding),
  };
}

/** Only its own node, and of that only handler labels and the group's status annotation. */
function nodePolicy(name: string, user: string, group: string) {
  const map = (object: string, field: string) => `${object}.metadata.?${field}.orValue({})`;
  const onlyChanges = (field: string, allowed: string): string => {
    const [after, before] = [`variables.${field}`, `variables.old_${field}`];
    return (
      `${after}.all(key, (${allowed}) || (key in ${before} && ${before}[key] == ${after}[key])) && ` +
      `${before}.all(key, (${allowed}) || key in ${after})`
    );
  };
  return admissionPolicy({
    name: `${name}-node`,
    user,
    rule: { apiGroup: "", resource: "nodes", operations: ["UPDATE"] },
    variables: {
      ...nodeClaim,
      labels: map("object", "labels"),
      old_labels: map("oldObject", "labels"),
      annotations: map("object", "annotations"),
      old_annotations: map("oldObject", "annotations"),
    },
    validations: [
      claimed,
      {
        expression: "object.metadata.name == variables.nodeName && object.metadata.uid == variables.nodeUid",
        message: "An installer may only touch its own node.",
      },
      {
        expression:
          "object.?spec == oldObject.?spec && object.metadata.?finalizers == oldObject.metadata.?finalizers && " +
          "object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences",
        message: "An installer may only change the labels and annotations of its node.",
      },
      {
        expression: onlyChanges("labels", `key.startsWith('${handlerLabelPrefix}')`),
        message: `An installer may only change the labels ${handlerLabelPrefix}*.`,
      },
      {
        expression: onlyChanges("annotations", `key == '${statusAnnotation(group)}'`),
        message: `An installer may only change the annotation ${statusAnnotation(group)}.`,
      },
    ],
  });
}

/** Only Events that this node's installer writes about this node. */
function eventPolicy(name: string, user: string) {
  const own = (event: string) =>
    `${event}.involvedObject.kind == 'Node' && ${event}.involvedObject.name == variables.nodeName && ` +
    `${event}.involvedObject.uid == variables.nodeUid && ${event}.source.component == '${eventComponent}' && ` +
    `${event}.source.host == variables.nodeName`;
  return admissionPolicy({
    name: `${name}-events`,
    user,
    rule: { apiGroup: "", resource: "events", operations: ["CREATE", "UPDATE"] },
    variables: nodeClaim,
    validations: [
      claimed,
      {
        expression: `${own("object")} && (oldObject == null || (${own("oldObject")}))`,
        message: "An installer may only write its own Events about its own node.",
      },
    ],
  });
}

/** Only the group's tickets: a free one may be created, and after that only its holder may touch it. */
function ticketPolicy(name: string, user: string, group: string, atOnce: number) {
  const names = ticketNames(group, atOnce).map((ticket) => `'${ticket}'`);
  const own = (lease: string) =>
    `${lease}.spec.?holderIdentity.orValue('') == variables.nodeName && ` +
    `${lease}.metadata.?ownerReferences.orValue([]).exists(owner, owner.uid == variables.nodeUid)`;
  return admissionPolicy({
    name: `${name}-tickets`,
    user,
    rule: { apiGroup: "coordination.k8s.io", resource: "leases", operations: ["CREATE", "UPDATE", "DELETE"] },
    variables: nodeClaim,
    validations: [
      claimed,
      {
        expression: `request.name in [${names.join(", ")}]`,
        message: `An installer may only touch Leases that are tickets of group ${group}.`,
      },
      {
        expression: `oldObject == null || oldObject.spec.?holderIdentity.orValue('') == variables.nodeName`,
        message: "An installer may not touch another node's ticket.",
      },
      {
        expression: `object == null || (${own("object")} && object.metadata.ownerReferences.size() == 1)`,
        message: "A ticket must name the installer's own node as its holder and its only owner.",
      },
    ],
  });
}
