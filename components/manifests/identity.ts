import { eventComponent, eventNamespace, maxMessage } from "../../node-installer/kubernetes/events.ts";
import { nodeStates } from "../../node-installer/kubernetes/status.ts";
import { maxTicketReason, ticketReasonAnnotation } from "../../node-installer/kubernetes/tickets.ts";
import {
  handlerLabelPrefix,
  installerName,
  policyNames,
  stateLabel,
  statusAnnotation,
  ticketNames,
} from "../../runtime/names.ts";
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
  /** Key of the taint that an installer may take from its node. */
  startupTaint?: string | undefined;
}

/**
 * The rights of a group's installers, as manifests. RBAC alone cannot say "its own node" (every pod of the DaemonSet has
 * the same ServiceAccount), so admission policies narrow each right by the token's node claim. Nodes have no
 * `get`: admission does not see reads, but an empty patch reads the node and has to pass the policy.
 */
export function installerIdentity({ namespace, group, atOnce, startupTaint }: IdentityOptions) {
  const name = installerName(group);
  const subjects = [{ kind: "ServiceAccount", name, namespace }];
  const rbac = "rbac.authorization.k8s.io" as const;
  const apiVersion = `${rbac}/v1` as const;
  const user = `system:serviceaccount:${namespace}:${name}`;
  const policies = [nodePolicy(user, group, startupTaint), eventPolicy(user, group), ticketPolicy(user, group, atOnce)];
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
        // Before a runtime is removed: which pods are bound to this node with its class. RBAC cannot narrow that to one
        // node, and nothing less tells it: a pod that waits for a volume has no trace of its class on the node. And whether
        // a node with the startup taint is empty.
        { apiGroups: [""], resources: ["pods"], verbs: ["list"] },
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
        // RBAC cannot restrict these by name. The policy does so for creation; the namespace has nothing but tickets.
        { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create", "list"] },
        // How many nodes wait, so that each asks no more often than it has to.
        { apiGroups: ["apps"], resources: ["daemonsets"], verbs: ["get"], resourceNames: [installerName(group)] },
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

/** Far more than a node serves at a time, and than two groups of upgrades leave behind. */
const maxHandlerLabels = 64;
const states = nodeStates.map((state) => `'${state}'`);
/** `handlerName` in ../runtime/spec.ts, as a label. */
const handlerLabelPattern = `^${handlerLabelPrefix.replaceAll(".", "[.]")}contrast-(cc|insecure)-[a-z0-9-]+-[0-9a-f]{8}$`;
/** `publishedStatus` shortens its reason and its list of pods to less, however long names are. */
const maxStatus = 128 * 1024;

/**
 * Nothing of a node's spec, or nothing but that all taints with this key go. Other fields are compared whatever they are
 * called: `dyn`, because the API server otherwise warns that it knows no such map.
 */
function specUnchanged(startupTaint: string | undefined): string {
  if (startupTaint === undefined) return "object.?spec == oldObject.?spec";
  const [after, before] = ["dyn(object).?spec.orValue({})", "dyn(oldObject).?spec.orValue({})"];
  return (
    `${after}.all(key, key == 'taints' || (key in ${before} && ${before}[key] == ${after}[key])) && ` +
    `${before}.all(key, key == 'taints' || key in ${after}) && (variables.taints == variables.old_taints || ` +
    `variables.taints == variables.old_taints.filter(taint, taint.key != '${startupTaint}'))`
  );
}

/** Only its own node, and of that only handler labels, the group's state and status, and that its startup taint goes. */
function nodePolicy(user: string, group: string, startupTaint: string | undefined) {
  const map = (object: string, field: string) => `${object}.metadata.?${field}.orValue({})`;
  const onlyChanges = (field: string, allowed: string): string => {
    const [after, before] = [`variables.${field}`, `variables.old_${field}`];
    return (
      `${after}.all(key, (${allowed}) || (key in ${before} && ${before}[key] == ${after}[key])) && ` +
      `${before}.all(key, (${allowed}) || key in ${after})`
    );
  };
  return admissionPolicy({
    name: policyNames(group).node,
    user,
    rule: { apiGroup: "", resource: "nodes", operations: ["UPDATE"] },
    variables: {
      ...nodeClaim,
      labels: map("object", "labels"),
      old_labels: map("oldObject", "labels"),
      annotations: map("object", "annotations"),
      old_annotations: map("oldObject", "annotations"),
      ...(startupTaint !== undefined && {
        taints: "object.?spec.taints.orValue([])",
        old_taints: "oldObject.?spec.taints.orValue([])",
      }),
    },
    validations: [
      claimed,
      {
        expression: "object.metadata.name == variables.nodeName && object.metadata.uid == variables.nodeUid",
        message: "An installer may only touch its own node.",
      },
      {
        expression:
          `${specUnchanged(startupTaint)} && object.metadata.?finalizers == oldObject.metadata.?finalizers && ` +
          "object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences",
        message:
          startupTaint === undefined
            ? "An installer may only change the labels and annotations of its node."
            : `An installer may only change the labels and annotations of its node, and remove its taint ${startupTaint}.`,
      },
      {
        expression: onlyChanges("labels", `key.startsWith('${handlerLabelPrefix}') || key == '${stateLabel(group)}'`),
        message: `An installer may only change the labels ${handlerLabelPrefix}* and ${stateLabel(group)}.`,
      },
      {
        expression: `variables.labels[?'${stateLabel(group)}'].orValue('ready') in [${states.join(", ")}]`,
        message: `An installer may set the label ${stateLabel(group)} only to a state: ${nodeStates.join(", ")}.`,
      },
      {
        // Which handlers a group has changes with every update, so only their form is known here.
        expression:
          `variables.labels.all(key, !key.startsWith('${handlerLabelPrefix}') || ` +
          "(key in variables.old_labels && variables.old_labels[key] == variables.labels[key]) || " +
          `(variables.labels[key] == 'true' && key.matches('${handlerLabelPattern}'))) && ` +
          `variables.labels.filter(key, key.startsWith('${handlerLabelPrefix}')).size() <= ` +
          `[${maxHandlerLabels}, variables.old_labels.filter(key, key.startsWith('${handlerLabelPrefix}')).size()].max()`,
        message: `An installer may only set labels of handlers, to the value true, up to ${maxHandlerLabels}.`,
      },
      {
        expression: `size(variables.annotations[?'${statusAnnotation(group)}'].orValue('')) <= ${maxStatus}`,
        message: `An installer may only write a status of at most ${maxStatus} characters.`,
      },
      {
        // Entries come and go when labels change hands, but no change of ours takes the kubelet's.
        expression:
          "oldObject.metadata.?managedFields.orValue([]).all(old, old.?subresource.orValue('') == '' || " +
          "object.metadata.?managedFields.orValue([]).exists(entry, entry.manager == old.manager && " +
          "entry.?subresource.orValue('') == old.subresource)) && " +
          "(oldObject.metadata.?managedFields.orValue([]).size() == 0 || object.metadata.?managedFields.orValue([]).size() > 0)",
        message: "An installer may only change managedFields by changing fields.",
      },
      {
        expression: onlyChanges("annotations", `key == '${statusAnnotation(group)}'`),
        message: `An installer may only change the annotation ${statusAnnotation(group)}.`,
      },
    ],
  });
}

/** What a terminal would obey, or that hides or reorders text: as `printable` takes it away. */
const plain = (text: string): string => `!${text}.matches(r'[\\p{Cc}\\p{Cf}]')`;

/** A finalizer would keep an object, and its namespace, after everybody else let go of it. */
const bareMetadata = (object: string): string =>
  `${object}.metadata.?finalizers.orValue([]).size() == 0 && ${object}.metadata.?labels.orValue({}).size() == 0`;

/** Only Events that this node's installer writes about this node. */
function eventPolicy(user: string, group: string) {
  const own = (event: string) =>
    `${event}.involvedObject.kind == 'Node' && ${event}.involvedObject.name == variables.nodeName && ` +
    `${event}.involvedObject.uid == variables.nodeUid && ${event}.source.component == '${eventComponent}' && ` +
    `${event}.source.host == variables.nodeName && ` +
    `${event}.?reportingComponent.orValue('') in ['', '${eventComponent}'] && ` +
    `${event}.?reportingInstance.orValue('') in ['', variables.nodeName]`;
  return admissionPolicy({
    name: policyNames(group).events,
    user,
    rule: { apiGroup: "", resource: "events", operations: ["CREATE", "UPDATE"] },
    variables: nodeClaim,
    validations: [
      claimed,
      {
        expression: `${own("object")} && (oldObject == null || (${own("oldObject")}))`,
        message: "An installer may only write its own Events about its own node.",
      },
      {
        expression:
          "!has(object.related) && !has(object.series) && object.?action.orValue('') == '' && " +
          "object.?involvedObject.namespace.orValue('') == '' && object.?involvedObject.fieldPath.orValue('') == '' && " +
          "object.?involvedObject.apiVersion.orValue('') in ['', 'v1'] && object.?involvedObject.resourceVersion.orValue('') == ''",
        message: "An installer may only write Events that are about nothing but its own node.",
      },
      {
        expression:
          `size(object.?message.orValue('')) <= ${maxMessage} && size(object.?reason.orValue('')) <= 128 && ` +
          `${plain("object.?message.orValue('')")} && ${plain("object.?reason.orValue('')")} && ` +
          `object.?type.orValue('') in ['Normal', 'Warning'] && ` +
          `${bareMetadata("object")} && object.metadata.?annotations.orValue({}).size() == 0 && ` +
          "object.metadata.?ownerReferences.orValue([]).size() == 0",
        message: `An installer may only write Events of at most ${maxMessage} printable characters, without labels, annotations, owners and finalizers.`,
      },
    ],
  });
}

/** Only the group's tickets: a free one may be created, and after that only its holder may touch it. */
function ticketPolicy(user: string, group: string, atOnce: number) {
  const names = ticketNames(group, atOnce).map((ticket) => `'${ticket}'`);
  // With another owner, or one that it blocks, the garbage collector would not free it when the node is deleted.
  const own =
    "object.spec.?holderIdentity.orValue('') == variables.nodeName && " +
    "object.metadata.?ownerReferences.orValue([]).size() == 1 && object.metadata.ownerReferences.all(owner, " +
    "owner.apiVersion == 'v1' && owner.kind == 'Node' && owner.name == variables.nodeName && " +
    "owner.uid == variables.nodeUid && !owner.?controller.orValue(false) && !owner.?blockOwnerDeletion.orValue(false))";
  return admissionPolicy({
    name: policyNames(group).tickets,
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
        expression: `object == null || (${own})`,
        message: "A ticket must name the installer's own node as its holder and its only owner.",
      },
      {
        expression:
          `object == null || (${bareMetadata("object")} && object.metadata.?annotations.orValue({}).all(key, ` +
          `key == '${ticketReasonAnnotation}' && ` +
          `size(object.metadata.annotations[key]) <= ${maxTicketReason} && ` +
          `${plain("object.metadata.annotations[key]")}) && ` +
          "!has(object.spec.leaseDurationSeconds) && !has(object.spec.renewTime) && !has(object.spec.leaseTransitions) && " +
          "object.spec.?strategy.orValue('') == '' && object.spec.?preferredHolder.orValue('') == '')",
        message: "A ticket must have nothing but its holder, its time and a short reason: no finalizers, no labels.",
      },
    ],
  });
}
