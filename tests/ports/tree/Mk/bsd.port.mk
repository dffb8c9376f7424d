# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A test double of the FreeBSD ports tree's bsd.port.mk, for Debian's bmake: the variables, targets, messages and exit
# statuses that ports.sh relies upon, and nothing else.

.MAKE.EXPAND_VARIABLES= yes
.sinclude "${__MAKE_CONF:U/etc/make.conf}"

PREFIX= /usr/local
.if defined(FLAVORS) && empty(FLAVOR)
FLAVOR= ${FLAVORS:[1]}
.endif
PKGNAMEPREFIX?= ${FLAVORS:D${FLAVOR}-}
PKGBASE= ${PKGNAMEPREFIX}${PORTNAME}${PKGNAMESUFFIX}
PKGVERSION= ${PORTVERSION}${PORTREVISION:D_${PORTREVISION}}
PKGNAME= ${PKGBASE}-${PKGVERSION}
PKG_SUFX?= .pkg
PKGFILE= ${PACKAGES}/All/${PKGNAME}${PKG_SUFX}
WRKDIR= ${WRKDIRPREFIX}${.CURDIR}/work${FLAVOR:D-${FLAVOR}}
STAGEDIR= ${WRKDIR}/stage
MAINTAINER?= ports@FreeBSD.org
DISTINFO_FILE= ${.CURDIR}/distinfo
PKG?= /usr/local/sbin/pkg
_IN= ${DIST_SUBDIR:D${DIST_SUBDIR}/}

.if defined(RESTRICTED) && defined(NO_RESTRICTED)
IGNORE= is restricted: ${RESTRICTED}
.elif defined(BROKEN) && !defined(TRYBROKEN)
IGNORE= is marked as broken: ${BROKEN}
.endif

# A dependency is FILE:CATEGORY/PORT[@FLAVOR].
_NEEDED_fetch= ${FETCH_DEPENDS}
_NEEDED_build= ${BUILD_DEPENDS} ${RUN_DEPENDS}

check-sanity:
.if defined(IGNORE)
	@echo "===>  ${PKGNAME} ${IGNORE}."
	@false
.elif defined(BROKEN)
	@echo "Trying build of ${PKGNAME} even though it is marked BROKEN."
.endif

.for phase in fetch build
${phase}-depends:
.  if !defined(NO_DEPENDS)
.    for depend in ${_NEEDED_${phase}}
	@[ -e ${depend:C/:.*//} ] || { echo "===>   ${PKGNAME} depends on file: ${depend:C/:.*//} - not found"; exit 1; }
.    endfor
.  endif
.endfor

pkg-depends:
.if !defined(NO_DEPENDS) && ${PORTNAME} != "pkg"
	@[ -e ${PKG} ] || { echo "===>   ${PKGNAME} depends on file: ${PKG} - not found"; exit 1; }
.endif

fetch: check-sanity pkg-depends fetch-depends
	@mkdir -p ${DISTDIR}/${DIST_SUBDIR}
.for file in ${DISTFILES}
	@if [ ! -f ${DISTDIR}/${_IN}${file} ]; then \
		echo "=> ${file} doesn't seem to exist in ${DISTDIR}/${DIST_SUBDIR}."; \
		for site in ${MASTER_SITE_OVERRIDE} ${MASTER_SITES} ${MASTER_SITE_BACKUP}; do \
			echo "=> Attempting to fetch $${site}${file}"; \
			case $$site in \
				file://*) cp $${site#file://}${file} ${DISTDIR}/${_IN}${file} 2> /dev/null && break; \
					echo "fetch: $${site}${file}: Not Found" ;; \
				*) echo "fetch: $${site}${file}: No address record" ;; \
			esac; \
		done; \
	fi
	@[ -f ${DISTDIR}/${_IN}${file} ] || { echo "=> Couldn't fetch it - please try to retrieve this port manually."; false; }
.endfor

checksum: fetch
.for file in ${DISTFILES}
	@sum=$$(sed -n 's|^SHA256 (${_IN}${file}) = ||p' ${DISTINFO_FILE}); \
	if [ "$$(sha256sum < ${DISTDIR}/${_IN}${file})" = "$$sum  -" ]; then \
		echo "=> SHA256 Checksum OK for ${_IN}${file}."; \
	else \
		echo "=> SHA256 Checksum mismatch for ${_IN}${file}."; false; \
	fi
.endfor

extract: checksum
	@echo "===>  Extracting for ${PKGNAME}"
	@rm -rf ${WRKDIR}; mkdir -p ${WRKDIR}
.for file in ${DISTFILES}
	@cp ${DISTDIR}/${_IN}${file} ${WRKDIR}/
.endfor
	@touch ${WRKDIR}/.extract_done.${PORTNAME}._usr_local

.for target message before in patch Patching extract configure Configuring patch build Building configure stage Staging build
${target}: ${before}
	@echo "===>  ${message} for ${PKGNAME}"
	@mkdir -p ${STAGEDIR}
	@cd ${WRKDIR} && ${do-${target}:Utrue}
	@touch ${WRKDIR}/.${target}_done.${PORTNAME}._usr_local
.endfor

configure: build-depends

package: stage
	@echo "===>  Building packages for ${PKGNAME}"
	@mkdir -p ${PACKAGES}/All ${WRKDIR}/pkg
	@{ echo "name ${PKGBASE}"; echo "version ${PKGVERSION}"; echo "origin ${.CURDIR:T}"; \
		for depend in ${RUN_DEPENDS}; do \
			${PKG} which $${depend%%:*} | sed 's/^/depends /'; \
		done; \
	} > ${WRKDIR}/manifest
	@printf '%s\n' ${POST_INSTALL:Q} > ${WRKDIR}/post-install
	@${PKG} create ${WRKDIR} ${WRKDIR}/pkg/${PKGNAME}${PKG_SUFX}
	@ln -f ${WRKDIR}/pkg/${PKGNAME}${PKG_SUFX} ${PKGFILE}
	@touch ${WRKDIR}/.package_done.${PORTNAME}._usr_local

# name|path|prefix|comment|descr|maintainer|categories|extract|patch|fetch|build|run|www: not in INDEX order.
describe:
.if defined(FLAVORS) && !defined(_FLAVORED)
.  for flavor in ${FLAVORS}
	@${MAKE} -C ${.CURDIR} _FLAVORED=yes FLAVOR=${flavor} describe
.  endfor
.else
	@echo "${PKGNAME}|${.CURDIR}${_FLAVORED:D@${FLAVOR}}|${PREFIX}|${COMMENT}|${.CURDIR}/pkg-descr|${MAINTAINER}|devel|||${FETCH_DEPENDS:C/.*://:S,^,${PORTSDIR}/,}|${BUILD_DEPENDS:C/.*://:S,^,${PORTSDIR}/,}|${RUN_DEPENDS:C/.*://:S,^,${PORTSDIR}/,}|https://example.org/" >> ${INDEX_TMPDIR:D${INDEX_TMPDIR}/${INDEXFILE}.desc.${.CURDIR:H:T}:U/dev/stdout}
.endif

.PHONY: check-sanity fetch checksum extract patch configure build stage package describe pkg-depends fetch-depends build-depends
