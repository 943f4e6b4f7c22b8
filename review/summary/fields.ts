import { cards } from "../../runtime/cards.ts";

/** A field, with all that is in it, and the operations that say themselves what they do. */
const fields = (...names: string[]) =>
  new RegExp(`^(\\((create|delete|replace|import)\\)|(${names.join("|")})([.[].*)?)$`);

const metadata = String.raw`metadata\.(name|namespace|labels|annotations)`;

const inside = (parent: string, names: string[]) => names.map((name) => `${parent}${name}`);

const container = [
  ...["name", "image", "imagePullPolicy", "command", "args", "workingDir", "ports", "env", "envFrom", "resources"],
  ...["volumeMounts", "volumeDevices", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "restartPolicy"],
  ...["securityContext", "stdin", "stdinOnce", "tty", "terminationMessagePath", "terminationMessagePolicy"],
];

const pod = [
  ...inside(String.raw`(initContainers|containers)\[\d+\]\.`, container),
  ...["affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases"],
  ...["hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname", "imagePullSecrets", "nodeName", "nodeSelector"],
  ...["os", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "restartPolicy"],
  ...["runtimeClassName", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName", "subdomain"],
  ...["setHostnameAsFQDN", "shareProcessNamespace", "terminationGracePeriodSeconds", "tolerations"],
  ...["topologySpreadConstraints", "volumes"],
];

const rbac = "kubernetes:rbac.authorization.k8s.io/v1";

const admission = "kubernetes:admissionregistration.k8s.io/v1";

const rule = String.raw`rules\[\d+\]\.(apiGroups|resources|resourceNames|nonResourceURLs|verbs)`;

const subject = String.raw`subjects\[\d+\]\.(kind|name|namespace|apiGroup)`;

/**
 * Fields, by exact type, of which a difference is explained by being shown: their names say what they do, or the type's
 * documentation does. Whatever is not listed, and every other type, is said to be unexplained. Not a list of what is
 * harmless: all of it is shown.
 */
export const fieldsOf: Record<string, RegExp | undefined> = {
  "kubernetes:core/v1:Namespace": fields(metadata),
  "kubernetes:core/v1:ServiceAccount": fields(metadata, "automountServiceAccountToken", "imagePullSecrets", "secrets"),
  "kubernetes:core/v1:Secret": fields(metadata, "data", "stringData", "type", "immutable"),
  "kubernetes:apps/v1:DaemonSet": fields(
    metadata,
    ...inside(String.raw`spec\.`, ["selector", "updateStrategy", "minReadySeconds", "revisionHistoryLimit"]),
    String.raw`spec\.template\.${metadata}`,
    ...inside(String.raw`spec\.template\.spec\.`, pod),
  ),
  "kubernetes:node.k8s.io/v1:RuntimeClass": fields(metadata, "handler", "overhead", "scheduling"),
  [`${rbac}:Role`]: fields(metadata, rule),
  [`${rbac}:ClusterRole`]: fields(metadata, rule, "aggregationRule"),
  [`${rbac}:RoleBinding`]: fields(metadata, String.raw`roleRef\.(kind|name|apiGroup)`, subject),
  [`${rbac}:ClusterRoleBinding`]: fields(metadata, String.raw`roleRef\.(kind|name|apiGroup)`, subject),
  [`${admission}:ValidatingAdmissionPolicy`]: fields(
    metadata,
    ...inside(String.raw`spec\.`, ["failurePolicy", "matchConditions", "matchConstraints", "validations", "variables"]),
    ...inside(String.raw`spec\.`, ["auditAnnotations", "paramKind"]),
  ),
  [`${admission}:ValidatingAdmissionPolicyBinding`]: fields(
    metadata,
    ...inside(String.raw`spec\.`, ["policyName", "validationActions", "matchResources", "paramRef"]),
  ),
  [`${admission}:MutatingAdmissionPolicy`]: fields(
    metadata,
    ...inside(String.raw`spec\.`, ["failurePolicy", "matchConditions", "matchConstraints", "mutations", "variables"]),
    ...inside(String.raw`spec\.`, ["reinvocationPolicy", "paramKind"]),
  ),
  [`${admission}:MutatingAdmissionPolicyBinding`]: fields(
    metadata,
    ...inside(String.raw`spec\.`, ["policyName", "matchResources", "paramRef"]),
  ),
  "pulumi:providers:kubernetes": fields(
    ...["clusterIdentifier", "kubeconfig", "renderYamlToDirectory", "context", "cluster", "namespace", "version"],
    ...["enablePatchForce", "upsertExistingObjects", "enableServerSideApply", "deleteUnreachable"],
  ),
  "pulumi:providers:azure-native": fields(
    ...["environment", "subscriptionId", "tenantId", "clientId", "clientSecret", "version", "location", "useOidc"],
    ...["useMsi", "oidcToken", "clientCertificatePath", "clientCertificatePassword"],
  ),
  "azure-native:containerservice:AgentPool": fields(
    ...["agentPoolName", "availabilityZones", "count", "mode", "osSKU", "osType", "resourceGroupName", "resourceName"],
    ...["type", "vmSize", "workloadRuntime", "maxPods", "nodeLabels", "nodeTaints", "tags", "orchestratorVersion"],
  ),
};

/** Components do nothing themselves: their inputs are what a reviewer should see first. */
export const components = new Set<string>(cards.map(({ type }) => type));
