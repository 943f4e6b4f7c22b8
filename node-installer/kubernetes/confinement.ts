import { installerName, policyNames } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type Api, ApiError } from "./api.ts";
import { eventComponent, eventNamespace } from "./events.ts";
import { nodePath, readOwnNode } from "./node.ts";

/**
 * RBAC gives an installer's token more than it should use; admission policies take the rest away. Nothing in the cluster
 * ties the two together: a policy begins to act about a second after it was created, GitOps applies in any order, and
 * anybody may delete one. So the installer tries what each policy has to refuse, and works only while all of them do.
 */
export interface Confinement {
  /**
   * @param now false: an answer of the last three hours will do, on a node on which nothing is about to change
   * @throws Refusal `unconfined` if something is allowed that must not be; `ApiError` if that cannot be told
   */
  require(now?: boolean): Promise<void>;
}

/** A fleet's nodes ask at different times, so that one of them sees soon that a policy is gone. */
const validMs = 3 * 3_600_000;
/** How often, and for how many times, a policy that was just created is given time to act. */
const patienceMs = 1_000;
const longestPatience = 9;

export interface ConfinementOptions {
  api: Api;
  group: string;
  namespace: string;
  nodeName: string;
  now: () => Date;
  delay: (ms: number) => Promise<void>;
}

/** Every probe is a dry run on this node's own behalf: even one that is allowed changes nothing. */
export function clusterConfinement(options: ConfinementOptions): Confinement {
  const { group, now, delay } = options;
  let confirmed: number | undefined;
  /** Spent once: later calls say at once what is still allowed, and their caller decides when to ask again. */
  let patience = longestPatience;
  return {
    async require(atOnce = false) {
      if (!atOnce && confirmed !== undefined && Math.abs(now().getTime() - confirmed) < validMs) return;
      confirmed = undefined;
      let allowed = await allowedProbes(options);
      for (; allowed.length > 0 && patience > 0; patience -= 1) {
        await delay(patienceMs);
        allowed = await allowedProbes(options);
      }
      if (allowed.length > 0) {
        throw new Refusal(
          "unconfined",
          `This installer's token may do more than it should: no policy refuses ${allowed.map(({ what }) => what).join(", nor ")}. ` +
            `Nothing is done on this node until the ValidatingAdmissionPolicies ${allowed.map(({ policy }) => policy).join(", ")} and ` +
            `their bindings are in force again: update the stack with --refresh, or apply the rendered manifests of group ${group}.`,
        );
      }
      patience = longestPatience;
      confirmed = now().getTime();
    },
  };
}

interface Probe {
  /** What must be refused. */
  what: string;
  policy: string;
  attempt: () => Promise<unknown>;
}

async function allowedProbes(options: ConfinementOptions): Promise<Probe[]> {
  const probes = await probesOf(options);
  const refused = await Promise.all(probes.map(isRefused));
  return probes.filter((_, index) => !refused[index]);
}

/** Only the policy's own word counts: a right that RBAC does not give is another fault, and its error says so. */
async function isRefused({ policy, attempt }: Probe): Promise<boolean> {
  try {
    await attempt();
    return false;
  } catch (error) {
    if (error instanceof ApiError && error.status === 403 && error.message.includes(`'${policy}'`)) return true;
    throw error;
  }
}

async function probesOf({ api, group, namespace, nodeName }: ConfinementOptions): Promise<Probe[]> {
  const policies = policyNames(group);
  const { uid } = (await readOwnNode(api, nodeName)).metadata;
  const name = `${installerName(group)}-probe`;
  return [
    {
      what: "an annotation of its node that is not its own",
      policy: policies.node,
      attempt: () => api.mergePatch(dryRun(nodePath(nodeName)), { metadata: { annotations: { [name]: "allowed" } } }),
    },
    {
      what: "an Event in another's name",
      policy: policies.events,
      attempt: () =>
        api.create(dryRun(`/api/v1/namespaces/${eventNamespace}/events`), {
          apiVersion: "v1",
          kind: "Event",
          metadata: { name, namespace: eventNamespace },
          involvedObject: { apiVersion: "v1", kind: "Node", name: nodeName, uid },
          type: "Normal",
          reason: "Probe",
          message: "A dry run.",
          source: { component: `not-${eventComponent}`, host: nodeName },
        }),
    },
    {
      what: "a Lease that is no ticket",
      policy: policies.tickets,
      attempt: () =>
        api.create(dryRun(`/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`), {
          apiVersion: "coordination.k8s.io/v1",
          kind: "Lease",
          metadata: { name, namespace },
          spec: { holderIdentity: nodeName },
        }),
    },
  ];
}

const dryRun = (path: string): string => `${path}?dryRun=All`;
