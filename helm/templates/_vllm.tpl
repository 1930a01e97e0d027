{{/* The container of a real or simulated model server. Each: (list root model) */}}

{{- define "joulegate.serverPorts" -}}
ports:
  - {name: http, containerPort: 8000, protocol: TCP}
livenessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{- define "joulegate.simulatorContainer" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
- name: server
  {{- include "joulegate.container" $root | nindent 2 }}
  args:
    - backend
    - {{ $model.key }}
    - --simulate
    - {{ printf "--host=%v" $root.Values.listenAddress | quote }}
    - --port=8000
    - {{ printf "--speed=%v" $model.simulator.speed | quote }}
    - {{ printf "--seed=%v" (int64 $model.simulator.seed) | quote }}
  {{- with $model.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $model.envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "joulegate.serverPorts" $root | nindent 2 }}
  startupProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 1
    failureThreshold: 60
  resources: {{- toYaml $model.simulator.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- with $model.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "joulegate.vllmArguments" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
- --model
- {{ $model.model | quote }}
- --served-model-name
- {{ $model.servedName | default $model.name | quote }}
- --max-model-len
- {{ int $model.context | quote }}
- --host
- {{ $root.Values.listenAddress | quote }}
- --port
- "8000"
{{- range $model.flags }}
- {{ . | quote }}
{{- end }}
{{- if $model.chatTemplate }}
- --chat-template
- /etc/vllm/chat.jinja
{{- end }}
{{- if gt (int $model.gpus) 1 }}
- --tensor-parallel-size
- {{ int $model.gpus | quote }}
{{- end }}
{{- if $model.drain }}
- --middleware
- joulegate_draining.RefuseWhileDraining
{{- end }}
{{- range $model.args }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "joulegate.vllmContainer" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
{{- $tellsGpus := and (include "joulegate.hasSidecar" .) (gt (int $model.gpus) 0) -}}
- name: server
  image: {{ include "joulegate.imageOf" (list $root $model.image) | quote }}
  imagePullPolicy: {{ $model.image.pullPolicy }}
  securityContext: {{- toYaml $root.Values.securityContext | nindent 4 }}
  {{- if $tellsGpus }}
  # Only this container was given GPUs: what writes their counters down for the meter runs here.
  command:
    - sh
    - -c
    - |
      python3 /etc/joulegate/joulegate_counters.py /run/gpus/counters {{ int $model.gpus }} &
      exec python3 -m vllm.entrypoints.openai.api_server "$@"
    - vllm
  {{- else }}
  command: [python3, -m, vllm.entrypoints.openai.api_server]
  {{- end }}
  args: {{- include "joulegate.vllmArguments" . | nindent 4 }}
  env:
    # The user has no entry in the image's passwd, and PyTorch asks for its name.
    - {name: USER, value: vllm}
    - {name: HOME, value: /tmp}
    - {name: HF_HOME, value: /var/cache/models}
    - {name: VLLM_CACHE_ROOT, value: /tmp/vllm}
    - {name: TORCHINDUCTOR_CACHE_DIR, value: /tmp/torchinductor}
    - {name: TRITON_CACHE_DIR, value: /tmp/triton}
    - {name: VLLM_NO_USAGE_STATS, value: "1"}
    {{- if $model.drain }}
    - {name: PYTHONPATH, value: /etc/joulegate}
    {{- end }}
    {{- if $model.hub.offline }}
    - {name: HF_HUB_OFFLINE, value: "1"}
    {{- end }}
    {{- if $model.hub.secretName }}
    - {name: HF_TOKEN_PATH, value: /etc/hub/token}
    {{- end }}
    {{- if $model.apiKeySecret.name }}
    - name: VLLM_API_KEY
      valueFrom: {secretKeyRef: {{ toJson $model.apiKeySecret }}}
    {{- end }}
    {{- with $model.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $model.envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $model.drain }}
  lifecycle:
    preStop:
      exec: {command: [python3, /etc/joulegate/joulegate_draining.py]}
  {{- end }}
  {{- include "joulegate.serverPorts" $root | nindent 2 }}
  startupProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: {{ divf $model.startupSeconds 10 | ceil }}
  {{- $resources := deepCopy $model.resources }}
  {{- if gt (int $model.gpus) 0 }}
  {{- $_ := set $resources "limits" (merge (dict $model.gpuResource (int $model.gpus)) ($resources.limits | default dict)) }}
  {{- end }}
  resources: {{- toYaml $resources | nindent 4 }}
  volumeMounts:
    - {name: cache, mountPath: /var/cache/models}
    - {name: tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
    - {name: scripts, mountPath: /etc/joulegate, readOnly: true}
    {{- if $model.chatTemplate }}
    - {name: template, mountPath: /etc/vllm, readOnly: true}
    {{- end }}
    {{- if $model.hub.secretName }}
    - {name: hub-token, mountPath: /etc/hub, readOnly: true}
    {{- end }}
    {{- if $tellsGpus }}
    - {name: gpus, mountPath: /run/gpus}
    {{- end }}
    {{- with $model.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "joulegate.chatTemplate" -}}
{{- $model := index . 1 -}}
{{- if eq $model.chatTemplate "falcon-7b" -}}
{{- (index . 0).Files.Get "files/falcon-7b.jinja" -}}
{{- else -}}
{{- $model.chatTemplate -}}
{{- end -}}
{{- end -}}
