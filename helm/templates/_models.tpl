{{/* The models as they are served: each with what it takes from modelDefaults. Mistakes end here. */}}

{{- define "joulegate.models" -}}
{{- $models := list -}}
{{- range $key, $own := .Values.models -}}
{{- $model := mergeOverwrite (deepCopy $.Values.modelDefaults) (deepCopy ($own | default dict)) -}}
{{- if $model.enabled -}}
{{- $name := $model.name | default $key -}}
{{- if eq $model.mode "external" -}}
{{- if not $model.backends -}}
{{- fail (printf "models.%s: mode external needs `backends`" $key) -}}
{{- end -}}
{{- else if $model.backends -}}
{{- fail (printf "models.%s: `backends` are for mode external" $key) -}}
{{- else if eq $model.mode "simulator" -}}
{{- if not (has $key (list "phi-3-mini" "mistral-7b" "falcon-7b")) -}}
{{- fail (printf "models.%s: mode simulator knows phi-3-mini, mistral-7b and falcon-7b" $key) -}}
{{- end -}}
{{- else if not $model.model -}}
{{- fail (printf "models.%s: mode vllm needs `model`, a name at the hub or a folder" $key) -}}
{{- end -}}
{{- if and (eq $model.cache.type "claim") (not $model.cache.claim) (eq $model.mode "vllm") -}}
{{- fail (printf "models.%s: cache.type claim needs `cache.claim`" $key) -}}
{{- end -}}
{{- $scaled := and $model.autoscaling.enabled (ne $model.mode "external") -}}
{{- if $scaled -}}
{{- with $model.autoscaling -}}
{{- if not .serverAddress -}}
{{- fail (printf "models.%s.autoscaling: needs `serverAddress`, Prometheus' root URL" $key) -}}
{{- else if not $.Values.monitoring.serviceMonitor -}}
{{- fail (printf "models.%s.autoscaling: needs `monitoring.serviceMonitor`, whose labels its query selects by" $key) -}}
{{- else if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "models.%s.autoscaling: minReplicas is above maxReplicas" $key) -}}
{{- end -}}
{{- $_ := set $model "replicas" .maxReplicas -}}
{{- end -}}
{{- end -}}
{{- $_ := set $model "scaled" $scaled -}}
{{- if and (eq $model.cache.type "claim") (gt (int $model.replicas) 1) (eq $model.mode "vllm") -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" $.Release.Namespace $model.cache.claim | default dict -}}
{{- $modes := dig "spec" "accessModes" list $claim -}}
{{- if and $modes (not (or (has "ReadWriteMany" $modes) (has "ReadOnlyMany" $modes))) -}}
{{- fail (printf "models.%s: %d servers cannot share the claim %s, which is %s: one node alone may mount it" $key (int $model.replicas) $model.cache.claim (join ", " $modes)) -}}
{{- end -}}
{{- end -}}
{{- if not (hasPrefix "nvidia.com/" $model.gpuResource) -}}
{{- /* Nodes are tainted by their own resource's name. */ -}}
{{- range $model.tolerations -}}
{{- if eq (.key | default "") "nvidia.com/gpu" -}}{{- $_ := set . "key" $model.gpuResource -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $models = append $models (merge (dict "key" $key "name" $name "object" (include "joulegate.named" (list $ $key))) $model) -}}
{{- end -}}
{{- end -}}
{{- if not $models -}}
{{- fail "models: none is enabled; the gateway needs one at least" -}}
{{- end -}}
{{- toYaml $models -}}
{{- end -}}

{{/* Seconds that the gateway's rollout may take: until a server has loaded, for without one the gateway is not ready. */}}
{{- define "joulegate.rolloutSeconds" -}}
{{- $seconds := 0 -}}
{{- range include "joulegate.models" . | fromYamlArray -}}
{{- if eq .mode "vllm" -}}{{- $seconds = max $seconds .startupSeconds -}}{{- end -}}
{{- end -}}
{{- add $seconds 600 -}}
{{- end -}}

{{/* Whether a model is served by vLLM here. */}}
{{- define "joulegate.servesVllm" -}}
{{- range include "joulegate.models" . | fromYamlArray -}}
{{- if eq .mode "vllm" -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a meter stands beside each of the servers of a model that is served here: (list root model) */}}
{{- define "joulegate.hasSidecar" -}}
{{- if and (eq (index . 0).Values.meter.mode "sidecar") (or (eq (index . 1).mode "simulator") (gt (int (index . 1).gpus) 0)) -}}
true
{{- end -}}
{{- end -}}

{{/* Name of the variable that holds a backend's key: (list key number). The number goes first, for a model's key may end in one. */}}
{{- define "joulegate.keyVariable" -}}
BACKEND_{{ with index . 1 }}{{ . }}_{{ end }}KEY_{{ index . 0 | replace "-" "_" | upper }}
{{- end -}}

{{/* The model's backends as gateway.yaml has them: (list root model) */}}
{{- define "joulegate.backends" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
{{- $backends := list -}}
{{- if eq $model.mode "external" -}}
{{- range $number, $given := $model.backends -}}
{{- $backend := pick $given "url" "meter" -}}
{{- if $given.apiKeySecret -}}
{{- $_ := set $backend "api_key" (printf "${%s}" (include "joulegate.keyVariable" (list $model.key (toString $number)))) -}}
{{- end -}}
{{- $backends = append $backends $backend -}}
{{- end -}}
{{- else -}}
{{- range $number := until (int $model.replicas) -}}
{{- $host := printf "%s-%d.%s.%s.svc.%s" $model.object $number $model.object $root.Release.Namespace $root.Values.clusterDomain -}}
{{- $backend := dict "url" (printf "http://%s:8000" $host) -}}
{{- if include "joulegate.hasSidecar" (list $root $model) -}}
{{- $_ := set $backend "meter" (printf "http://%s:9464" $host) -}}
{{- end -}}
{{- if $model.apiKeySecret.name -}}
{{- $_ := set $backend "api_key" (printf "${%s}" (include "joulegate.keyVariable" (list $model.key ""))) -}}
{{- end -}}
{{- $backends = append $backends $backend -}}
{{- end -}}
{{- end -}}
{{- toYaml $backends -}}
{{- end -}}

{{/* gateway.yaml */}}
{{- define "joulegate.config" -}}
{{- $models := list -}}
{{- range $model := include "joulegate.models" . | fromYamlArray -}}
{{- $entry := dict "name" $model.name "context" (int $model.context) "capabilities" $model.capabilities "backends" (include "joulegate.backends" (list $ $model) | fromYamlArray) -}}
{{- with $model.profile -}}{{- $_ := set $entry "profile" . -}}{{- end -}}
{{- with $model.servedName -}}{{- $_ := set $entry "served_name" . -}}{{- end -}}
{{- if and $model.scaled (eq (int $model.autoscaling.minReplicas) 0) -}}
{{- $_ := set $entry "wake_seconds" ($model.autoscaling.wakeSeconds | default $model.startupSeconds | float64) -}}
{{- end -}}
{{- if ne $model.name $model.key -}}{{- $_ := set $entry "deployment" $model.key -}}{{- end -}}
{{- $models = append $models $entry -}}
{{- end -}}
{{- $config := merge (dict "models" $models "profile" "profile.json") .Values.gateway.config -}}
{{- if .Values.gateway.keysSecret.name -}}
{{- $_ := set $config "keys" (merge (dict "file" "keys.yaml") ($config.keys | default dict)) -}}
{{- end -}}
{{- if include "joulegate.meterSecretName" . -}}{{- $_ := set $config "meter_secret" "${METER_SECRET}" -}}{{- end -}}
{{- if not .Values.profile.replace -}}{{- $_ := set $config "learnt_profile" "learnt.json" -}}{{- end -}}
{{- if .Values.profile.shadow -}}{{- $_ := set $config "shadow" "shadow.json" -}}{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Environment of the gateway: the secrets that gateway.yaml refers to, and the user's own. */}}
{{- define "joulegate.gatewayEnv" -}}
{{- $env := list -}}
{{- with include "joulegate.meterSecretName" . -}}
{{- $env = append $env (dict "name" "METER_SECRET" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" $.Values.meter.secret.key))) -}}
{{- end -}}
{{- range $model := include "joulegate.models" . | fromYamlArray -}}
{{- if eq $model.mode "external" -}}
{{- range $number, $given := $model.backends -}}
{{- with $given.apiKeySecret -}}
{{- $env = append $env (dict "name" (include "joulegate.keyVariable" (list $model.key (toString $number))) "valueFrom" (dict "secretKeyRef" .)) -}}
{{- end -}}
{{- end -}}
{{- else if $model.apiKeySecret.name -}}
{{- $env = append $env (dict "name" (include "joulegate.keyVariable" (list $model.key "")) "valueFrom" (dict "secretKeyRef" $model.apiKeySecret)) -}}
{{- end -}}
{{- end -}}
{{- with concat $env .Values.gateway.env -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* A quantity in thousandths of its unit, for comparing: "2" and "500m" of CPU. */}}
{{- define "joulegate.millis" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{ trimSuffix "m" $text | int64 }}{{- else -}}{{ mulf (float64 $text) 1000 | int64 }}{{- end -}}
{{- end -}}

{{/* What may go wrong and need not: a line each, for NOTES. */}}
{{- define "joulegate.warnings" -}}
{{- $workers := int .Values.gateway.workers -}}
{{- with dig "limits" "cpu" "" .Values.gateway.resources -}}
{{- if lt (include "joulegate.millis" . | int64) (mul $workers 1000) }}
- gateway.workers is {{ $workers }} and gateway.resources.limits.cpu {{ . }}: a worker uses one core, so they would throttle one another.
{{- end -}}
{{- end -}}
{{- with dig "limits" "memory" "" .Values.gateway.resources -}}
{{- $known := dict "Mi" 1 "Gi" 1024 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- if hasKey $known $unit -}}
{{- if lt (mulf (trimSuffix $unit $text | float64) (get $known $unit) | int64) (mul $workers 384) }}
- gateway.workers is {{ $workers }} and gateway.resources.limits.memory {{ . }}: give 512Mi to each, or the kernel ends them under load.
{{- end -}}
{{- end -}}
{{- end -}}
{{- $sidecars := eq .Values.meter.mode "sidecar" -}}
{{- $noMeters := eq .Values.meter.mode "none" -}}
{{- range include "joulegate.models" . | fromYamlArray -}}
{{- if and (eq .mode "vllm") (not $sidecars) (not $noMeters) }}
- models.{{ .key }}: served here, and meter.mode daemonset meters only servers that others run: its joules are estimates. Use meter.mode sidecar.
{{- end -}}
{{- if and (eq .mode "vllm") (eq .cache.type "claim") (gt (int .replicas) 1) }}
- models.{{ .key }}: {{ int .replicas }} servers share the claim {{ .cache.claim }}; unless it is ReadWriteMany or ReadOnlyMany, those on other nodes stay Pending.
{{- end -}}
{{- end -}}
{{- end -}}
