import { pluginVersion } from "../../../tools/engine/versions.ts";
import { serve } from "../plugin.ts";
import { KubernetesProvider } from "./provider.ts";

await serve(pluginVersion("kubernetes"), new KubernetesProvider());
