/** When an object is ready. Kinds that are not listed here are ready as soon as the server has them. */
import { isObject, type Properties, type Value } from "../values.ts";
import { annotationOf, apiVersionOf, kindOf } from "./objects.ts";

export type Readiness = { ready: true } | { ready: false; reason: string; failed?: boolean };

const numberIn = (value: Value | undefined, key: string): number => {
  const item = isObject(value) ? value[key] : undefined;
  return typeof item === "number" ? item : 0;
};

const ready: Readiness = { ready: true };
const waiting = (reason: string): Readiness => ({ ready: false, reason });

function condition(object: Properties, type: string): Properties | undefined {
  const conditions = isObject(object.status) ? object.status.conditions : undefined;
  const found = Array.isArray(conditions) ? conditions.find((item) => isObject(item) && item.type === type) : undefined;
  return isObject(found) ? found : undefined;
}

const isTrue = (found: Properties | undefined): boolean => found?.status === "True";
const messageOf = (found: Properties | undefined, otherwise: string): string => String(found?.message ?? otherwise);

/** Whether the controller has seen the object's current spec. */
const isObserved = ({ metadata, status }: Properties): boolean =>
  numberIn(status, "observedGeneration") >= numberIn(metadata, "generation");

const awaited: Record<string, (object: Properties) => Readiness> = {
  "apps/v1 DaemonSet": (object) => {
    const { spec, status } = object;
    const desired = numberIn(status, "desiredNumberScheduled");
    const [updated, available] = [numberIn(status, "updatedNumberScheduled"), numberIn(status, "numberAvailable")];
    if (!isObserved(object)) return waiting("waiting for the DaemonSet controller");
    const strategy = isObject(spec) && isObject(spec.updateStrategy) ? spec.updateStrategy.type : undefined;
    if (updated < desired)
      return waiting(`updated: ${updated}/${desired}${strategy === "OnDelete" ? ", by deleting the old pods" : ""}`);
    return available < desired ? waiting(`available: ${available}/${desired}`) : ready;
  },
  "apps/v1 Deployment": (object) => {
    const { spec, status } = object;
    if (!isObserved(object)) return waiting("waiting for the Deployment controller");
    const progressing = condition(object, "Progressing");
    if (progressing?.reason === "ProgressDeadlineExceeded")
      return { ready: false, reason: messageOf(progressing, "the deadline is exceeded"), failed: true };
    const wanted = isObject(spec) && typeof spec.replicas === "number" ? spec.replicas : 1;
    const updated = numberIn(status, "updatedReplicas");
    if (updated < wanted) return waiting(`updated: ${updated}/${wanted}`);
    const left = numberIn(status, "replicas") - updated;
    if (left > 0) return waiting(`${left} old replicas are left`);
    const available = numberIn(status, "availableReplicas");
    return available < wanted ? waiting(`available: ${available}/${wanted}`) : ready;
  },
  "batch/v1 Job": (object) => {
    const failed = condition(object, "Failed");
    if (isTrue(failed)) return { ready: false, reason: messageOf(failed, "the Job failed"), failed: true };
    return isTrue(condition(object, "Complete")) ? ready : waiting("waiting for the Job to complete");
  },
  "v1 Pod": (object) => {
    const phase = isObject(object.status) ? object.status.phase : undefined;
    if (phase === "Succeeded" || isTrue(condition(object, "Ready"))) return ready;
    if (phase === "Failed") return { ready: false, reason: "the Pod failed", failed: true };
    const unready = ["PodScheduled", "Initialized", "Ready"].map((type) => condition(object, type));
    return waiting(
      messageOf(
        unready.find((found) => found && !isTrue(found)),
        "waiting for the Pod",
      ),
    );
  },
};

export function readiness(object: Properties): Readiness {
  return awaited[`${apiVersionOf(object)} ${kindOf(object)}`]?.(object) ?? ready;
}

export const isAwaited = (object: Properties): boolean =>
  `${apiVersionOf(object)} ${kindOf(object)}` in awaited && annotationOf(object, "skipAwait") !== "true";

/** Kinds for which `skipAwait` also applies to deletion. */
const deletedUnseen = ["Namespace", "Pod", "DaemonSet", "Deployment", "StatefulSet", "Job", "ReplicationController"];

export const isDeletionAwaited = (object: Properties): boolean =>
  annotationOf(object, "skipAwait") !== "true" || !deletedUnseen.includes(kindOf(object));

/** The resource's own timeout, its annotation, or ten minutes. */
export function timeoutMs(seconds: number, object: Properties): number {
  const annotated = Number.parseInt(annotationOf(object, "timeoutSeconds"), 10);
  return (seconds || annotated || 600) * 1000;
}
