{{- define "heron.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "heron.fullname" -}}
{{- $name := include "heron.name" . -}}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $own .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* Labels of a component: (list . "router"), and of one site: (list . "site" "north"). */ -}}
{{- define "heron.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "heron.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
heron/site: {{ index . 2 }}
{{- end }}
{{- end }}

{{- define "heron.labels" -}}
{{- $root := index . 0 -}}
{{ include "heron.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: heron
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "heron.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- define "heron.secretName" -}}
{{- default (include "heron.fullname" .) .Values.existingSecret -}}
{{- end }}

{{- /* A site with what siteDefaults says where it says nothing: (list . "north"), as JSON. */ -}}
{{- define "heron.site" -}}
{{- $root := index . 0 -}}
{{- $site := deepCopy $root.Values.siteDefaults | mustMergeOverwrite (dict) -}}
{{- $site = mustMergeOverwrite $site (deepCopy (default (dict) (index $root.Values.sites (index . 1)))) -}}
{{- toJson $site -}}
{{- end }}

{{- /* Whether the feed's tables switch this site's server, as site_agent/config.py looks for it: (list . "north"). */ -}}
{{- define "heron.isSwitched" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- range (ternary $root.Values.powerFeed.config.farms list $root.Values.powerFeed.enabled) -}}
{{- range .sites -}}{{- if and (eq .site_id $name) .server }}yes{{ end -}}{{- end -}}
{{- end -}}
{{- end }}

{{- /* What a port speaks, by its table. */ -}}
{{- define "heron.scheme" -}}
{{- empty .tls_certificate_file | ternary "http" "https" -}}
{{- end }}

{{- /* One of its [[sites]], as JSON: (list . "north"). */ -}}
{{- define "heron.siteTable" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $full := include "heron.fullname" $root -}}
{{- $host := $root.Values.listenHost -}}
{{- $site := include "heron.site" . | fromJson -}}
{{- $own := dict "site_id" $name "host" $host "port" 8101 "operations_host" $host "operations_port" 8201 "state_dir" "/var/lib/heron/state" -}}
{{- $table := mustMergeOverwrite (deepCopy $site.config) $own -}}
{{- if $site.signingKeySecret -}}{{- $_ := set $table "signing_key_file" "signing.pem" -}}{{- end -}}
{{- if not $table.ingress_url -}}{{- $_ := set $table "ingress_url" (printf "%s://%s-site-%s:8101" (include "heron.scheme" $table) $full $name) -}}{{- end -}}
{{- if not $table.feed_url -}}{{- $_ := set $table "feed_url" (printf "http://%s-power-feed:8100" $full) -}}{{- end -}}
{{- if and (eq $table.engine.kind "vllm") (not $site.lockClocks) (not $table.engine.gpu_driver) -}}
{{- $_ := set $table.engine "gpu_driver" "nvml-read-only" -}}
{{- end -}}
{{- toJson $table -}}
{{- end }}

{{- /* The tables of the configuration file, as JSON: the values' own, and over them what the chart decides. */ -}}
{{- define "heron.tables" -}}
{{- include "heron.check" . -}}
{{- $full := include "heron.fullname" . -}}
{{- $host := .Values.listenHost -}}
{{- $tables := dict "fleet" (dict "name" .Values.fleetName) -}}
{{- range $key, $value := dict "tls_ca_file" .Values.callsTls.caFile "tls_client_certificate_file" .Values.callsTls.clientCertificateFile "tls_client_key_file" .Values.callsTls.clientKeyFile -}}
{{- if $value -}}{{- $_ := set $tables.fleet $key $value -}}{{- end -}}
{{- end -}}
{{- $trusted := dict -}}
{{- range $writer, $keys := .Values.trustedKeys -}}{{- if $keys -}}{{- $_ := set $trusted $writer $keys -}}{{- end -}}{{- end -}}
{{- if $trusted -}}{{- $_ := set $tables.fleet "trusted_keys" $trusted -}}{{- end -}}
{{- if .Values.router.enabled -}}
{{- $operations := printf "%s-router-operations.%s" $full .Release.Namespace -}}
{{- $names := concat .Values.router.operationsNames (list $operations (printf "%s.svc" $operations) (printf "%s.svc.cluster.local" $operations)) -}}
{{- $own := dict "host" $host "port" 8000 "operations_host" $host "operations_port" 8001 "operations_names" $names -}}
{{- if .Values.router.signingKeySecret -}}{{- $_ := set $own "signing_key_file" "signing.pem" -}}{{- end -}}
{{- $_ := set $tables "router" (mustMergeOverwrite (deepCopy .Values.router.config) $own) -}}
{{- end -}}
{{- if .Values.powerFeed.enabled -}}
{{- $own := dict "host" $host "port" 8100 -}}
{{- if .Values.powerFeed.signingKeySecret -}}{{- $_ := set $own "signing_key_file" "signing.pem" -}}{{- end -}}
{{- $_ := set $tables "power_feed" (mustMergeOverwrite (deepCopy .Values.powerFeed.config) $own) -}}
{{- end -}}
{{- $sites := list -}}
{{- range $name := keys .Values.sites | sortAlpha -}}
{{- $sites = append $sites (include "heron.siteTable" (list $ $name) | fromJson) -}}
{{- end -}}
{{- if $sites -}}{{- $_ := set $tables "sites" $sites -}}{{- end -}}
{{- toJson $tables -}}
{{- end }}

{{- /* What a pod reads of them, so that it is started anew when that changes and not when another's does. */ -}}
{{- define "heron.checksum" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $read := dict "name" $root.Values.fleetName "files" $root.Values.files "redis" $root.Values.redis.url "tls" $root.Values.callsTls "trusted" $root.Values.trustedKeys -}}
{{- if eq $component "site" -}}
{{- $_ := set $read "site" (include "heron.siteTable" (list $root (index . 2))) -}}
{{- $_ := set $read "switched" (include "heron.isSwitched" (list $root (index . 2))) -}}
{{- else -}}
{{- $tables := include "heron.tables" $root | fromJson -}}
{{- $_ := set $read "tables" (eq $component "router" | ternary (pick $tables "router") (pick $tables "power_feed" "sites")) -}}
{{- end -}}
{{- toJson $read | sha256sum -}}
{{- end }}

{{- /* What begins every pod: (list . component), and for a site its name. */ -}}
{{- define "heron.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "heron.labels" . | nindent 2 }}
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- if ne (index . 1) "redis" }}
  checksum/config: {{ include "heron.checksum" . }}
  {{- end }}
  kubectl.kubernetes.io/default-container: {{ index . 1 }}
  {{- with $root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* (list . part): scheduling from the part's values, and what no pod here needs. Without enableServiceLinks: false
Kubernetes would set HERON_ROUTER_PORT=tcp://… for a Service of that name, which Heron reads as its port. */ -}}
{{- define "heron.podCommon" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $part $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "heron.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "heron.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* Environment of every Heron service: what is secret, and what a part's extraEnv adds. (list . extraEnv) */ -}}
{{- define "heron.env" -}}
{{- $root := index . 0 -}}
- name: HERON_FLEET_SITE_TOKEN
  valueFrom: { secretKeyRef: { name: {{ include "heron.secretName" $root }}, key: site-token } }
{{- if $root.Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ include "heron.secretName" $root }}, key: redis-password } }
- name: HERON_FLEET_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "heron.fullname" $root }}-redis:6379/0
{{- else if $root.Values.redis.url }}
- name: HERON_FLEET_REDIS_URL
  value: {{ $root.Values.redis.url | quote }}
{{- else }}
- name: HERON_FLEET_REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ include "heron.secretName" $root }}, key: redis-url } }
{{- end }}
{{- with index . 1 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "heron.mounts" -}}
- { name: config, mountPath: /etc/heron, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- end }}

{{- /* Configuration and its files: (list . signingKeySecret), of which a pod sees its own alone. */ -}}
{{- define "heron.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  projected:
    sources:
      - configMap: { name: {{ include "heron.fullname" $root }} }
      {{- with $root.Values.secretFiles }}
      - secret: { name: {{ . }} }
      {{- end }}
      {{- with index . 1 }}
      - secret: { name: {{ . }}, items: [{ key: signing.pem, path: signing.pem }] }
      {{- end }}
- name: tmp
  emptyDir: {}
{{- end }}

{{- /* Probes at /healthz and /readyz of a port. An agent answers once it has asked vLLM what it can do: a minute, cold. */ -}}
{{- define "heron.probes" -}}
startupProbe:
  httpGet: { path: /healthz, port: {{ . }} }
  periodSeconds: 1
  failureThreshold: 300
livenessProbe:
  httpGet: { path: /healthz, port: {{ . }} }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: {{ . }} }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end }}

{{- /* (list . service-values): type and what a load balancer is told. */ -}}
{{- define "heron.serviceKind" -}}
type: {{ .type }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
