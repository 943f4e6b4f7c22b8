import * as z from "zod";

/* The part of Kubernetes' PodTemplateSpec that matters here; everything else passes through unchanged. */

const text = z.string();
const quantity = z.union([z.string(), z.number()]);
const quantities = z.record(z.string(), quantity);
const resources = z.looseObject({ limits: quantities.optional(), requests: quantities.optional() });
const handler = z.looseObject({ exec: z.unknown().optional() });

const containerSchema = z.looseObject({
  name: text,
  image: text.optional(),
  /** "Always" on an init container: a sidecar, which runs beside the containers. */
  restartPolicy: text.optional(),
  resources: resources.optional(),
  volumeMounts: z
    .array(z.looseObject({ name: text, subPath: text.optional(), subPathExpr: text.optional() }))
    .optional(),
  securityContext: z.looseObject({ privileged: z.boolean().optional() }).optional(),
  livenessProbe: handler.optional(),
  readinessProbe: handler.optional(),
  startupProbe: handler.optional(),
  lifecycle: z.looseObject({ postStart: handler.optional(), preStop: handler.optional() }).optional(),
});

const volumeSchema = z.looseObject({
  name: text,
  hostPath: z.looseObject({ path: text.optional() }).optional(),
  emptyDir: z.looseObject({ medium: text.optional(), sizeLimit: quantity.optional() }).optional(),
  persistentVolumeClaim: z.looseObject({ claimName: text.optional() }).optional(),
  /** A claim that is made with the pod. */
  ephemeral: z.looseObject({}).optional(),
  projected: z
    .looseObject({ sources: z.array(z.looseObject({ serviceAccountToken: z.unknown().optional() })).optional() })
    .optional(),
});

const strings = z.record(z.string(), z.string());
export const metadataSchema = z.looseObject({ labels: strings.optional(), annotations: strings.optional() });

export const podTemplateSchema = z.looseObject({
  metadata: metadataSchema.optional(),
  spec: z.looseObject({
    runtimeClassName: text.optional(),
    containers: z.array(containerSchema),
    initContainers: z.array(containerSchema).optional(),
    ephemeralContainers: z.array(z.looseObject({ name: text.optional() })).optional(),
    volumes: z.array(volumeSchema).optional(),
    imagePullSecrets: z.array(z.looseObject({ name: text.optional() })).optional(),
    hostNetwork: z.boolean().optional(),
    hostPID: z.boolean().optional(),
    hostIPC: z.boolean().optional(),
    /** Of the whole pod, since Kubernetes 1.34. */
    resources: resources.optional(),
  }),
});

export type PodTemplate = z.infer<typeof podTemplateSchema>;
export type Container = z.infer<typeof containerSchema>;
export type Volume = z.infer<typeof volumeSchema>;
export type Quantities = z.infer<typeof quantities>;
export type Metadata = z.infer<typeof metadataSchema>;
