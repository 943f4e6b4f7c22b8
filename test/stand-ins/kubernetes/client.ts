import type * as client from "@kubernetes/client-node";
import { kubernetesClient } from "../../../tools/fleet/kubernetes-client.ts";

export const { KubeConfig } = await kubernetesClient();
export type KubeConfig = client.KubeConfig;
