import * as z from "zod";

/* Names as Kubernetes defines them; each is refused before it becomes part of a command, a path or a manifest. */

const must = (error: string) => ({ error });

/** A Kubernetes name, which may have several labels. */
const domain = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
export const nodeName = z
  .string()
  .regex(domain, must("must be a node's name: at most 253 lower-case letters, digits, inner dots and dashes"));
export const namespaceName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, must("must be a namespace: lower-case letters, digits, inner dashes"));
/** Of a Secret, a PriorityClass, and most other objects. */
export const objectName = (kind: string) => z.string().regex(domain, must(`must be a ${kind}'s name`));
export const labelKey = /^([a-z0-9][a-z0-9.-]{0,252}\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
export const labelValue = z
  .string()
  .regex(/^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/, must("must be a valid label value"));
export const labels = z.record(z.string().regex(labelKey, must("must be a valid label key")), labelValue);
